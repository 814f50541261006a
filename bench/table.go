package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// table is the database of a SQLite sink, opened for reading.
type table struct{ db *sql.DB }

var _ store = (*table)(nil)

func openTable(path string) (*table, error) {
	query := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	return &table{db}, nil
}

// await asks for the largest rowid: rows are only added, so it is their number, and reading it costs one page.
func (t *table) await(ctx context.Context, n uint64) (time.Time, error) {
	var got uint64
	err := poll(ctx, "rows in SQLite", 10*time.Millisecond, func() (bool, error) {
		err := t.db.QueryRowContext(ctx, "SELECT coalesce(max(rowid), 0) FROM events").Scan(&got)
		return got >= n, err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("%d of %d stored: %w", got, n, err)
	}
	return time.Now(), nil
}

func (t *table) each(ctx context.Context, visit func(id, kind []byte)) error {
	rows, err := t.db.QueryContext(ctx, "SELECT id, type FROM events")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, kind sql.RawBytes
		if err := rows.Scan(&id, &kind); err != nil {
			return err
		}
		visit(id, kind)
	}
	return rows.Err()
}

func (t *table) close() error { return t.db.Close() }
