// Package postgres writes streams into a table of a PostgreSQL database. Each event is one row: where it was stored, the
// values that the configured columns pick from its JSON, and its bytes as they are.
//
// Rows and watermark are committed in one transaction, so every event is in the table exactly once, whatever crashes on
// either side. A later writer of a source and table takes over and the earlier one is refused. A server that is away is
// waited for.
//
// # Tables
//
// What is missing is created if the user may: the table with body json, which keeps the event's bytes, and columns of
// text; and hozo_watermark. A table that is there keeps its types: the server reads each value from text, so columns may be
// bigint, timestamptz or what else fits, and body jsonb or text. The user needs INSERT on the table, SELECT, INSERT and UPDATE on
// hozo_watermark.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/table"
	"github.com/jackc/pgx/v5"
)

const (
	// DefaultTable is the table that events are written to.
	DefaultTable = "events"

	connectTimeout = 10 * time.Second

	// writeTimeout bounds one transaction: 4 MiB into a server that is slow, or waits for a lock. Whether it was committed
	// the next one finds in the watermark, whose row it waits for.
	writeTimeout = time.Minute

	// closeTimeout bounds the goodbye to a server that may not answer.
	closeTimeout = time.Second
)

// Config tunes a Target. The zero Config is ready for production.
type Config struct {
	Table   string            // default "events"; the URL's search_path says in which schema
	Columns map[string]string // column to dotted path in the event's JSON: "repo": "repo.name"
}

// Target is one table of a database. It is a sink.Target.
type Target struct {
	cfg    *pgx.ConnConfig
	schema table.Schema

	mu     sync.Mutex // one connection, one transaction at a time
	conn   *pgx.Conn  // nil, or closed, when there is none
	made   bool       // the tables are there
	epochs map[string]int64
	rows   rows
}

var _ sink.Target = (*Target)(nil)

// Open checks url, which is postgres://USER@HOST:PORT/DATABASE with the parameters of libpq, and cfg. What the URL leaves out
// comes from the environment of libpq: PGPASSWORD, PGPASSFILE, PGSSLMODE and the others. It does not connect. Its errors are faults
// postgres/config.
func Open(url string, cfg Config) (*Target, error) {
	cfg.Table = cmp.Or(cfg.Table, DefaultTable)
	schema, err := table.New(cfg.Table, cfg.Columns, "postgres/config", func(string) bool { return false })
	conn, urlErr := pgx.ParseConfig(url)
	if urlErr != nil {
		urlErr = &fault.Error{
			Code: "postgres/config", Kind: fault.Misuse, Where: "to.postgres", What: "the URL, or the environment of libpq, cannot be used",
			Err: urlErr, Fix: "write postgres://USER@HOST:PORT/DATABASE, with the password in PGPASSWORD",
		}
	}
	if err := errors.Join(err, urlErr); err != nil {
		return nil, err
	}
	conn.ConnectTimeout = cmp.Or(conn.ConnectTimeout, connectTimeout)
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "hozo sink"
	}
	return &Target{cfg: conn, schema: schema, epochs: make(map[string]int64), rows: rows{schema: schema}}, nil
}

// where names the database without its password.
func (t *Target) where() string {
	return fmt.Sprintf("table %s of %s on %s:%d", t.schema.Table, t.cfg.Database, t.cfg.Host, t.cfg.Port)
}

// transact runs fn in a transaction, on a connection that is made if there is none.
func (t *Target) transact(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if t.conn == nil || t.conn.IsClosed() {
		conn, err := pgx.ConnectConfig(ctx, t.cfg.Copy())
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		t.conn = conn
	}
	if !t.made {
		if err := pgx.BeginFunc(ctx, t.conn, func(tx pgx.Tx) error { return create(ctx, tx, t.schema) }); err != nil {
			return fmt.Errorf("prepare %s: %w", t.where(), err)
		}
		t.made = true
	}
	return pgx.BeginFunc(ctx, t.conn, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

// Watermark takes source over from any writer before and returns its watermark. A fault postgres/schema says that the table is
// somebody else's.
func (t *Target) Watermark(ctx context.Context, source string) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var seq, epoch int64
	err := t.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			INSERT INTO `+table.Watermark+` AS w (source, target, seq, epoch) VALUES ($1, $2, 0, 1)
			ON CONFLICT (source, target) DO UPDATE SET epoch = w.epoch + 1
			RETURNING seq, epoch`, source, t.schema.Table).Scan(&seq, &epoch)
	})
	if err != nil {
		return 0, fmt.Errorf("claim %s: %w", source, err)
	}
	t.epochs[source] = epoch
	return uint64(seq), nil //nolint:gosec // written by Write
}

// Write commits the batch's rows and its watermark. It returns sink.ErrFenced when another writer has claimed the
// source, and a *sink.RowError for events that the table refuses.
func (t *Target) Write(ctx context.Context, b sink.Batch) (watermark uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	epoch, claimed := t.epochs[b.Source]
	if !claimed {
		return 0, fmt.Errorf("write %s: Watermark was not called for it", b.Source)
	}
	defer t.rows.clear()
	err = t.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		after, err := t.position(ctx, tx, b.Source, epoch)
		if err != nil {
			return err
		}
		if watermark = max(after, b.Last()); b.Last() <= after {
			return nil
		}
		if err := t.rows.gather(b, after); err != nil {
			return err
		}
		if err := t.rows.copyTo(ctx, t.conn, 0, t.rows.len()); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE `+table.Watermark+` SET seq = $1 WHERE source = $2 AND target = $3`,
			int64(b.Last()), b.Source, t.schema.Table) //nolint:gosec // a stream has fewer than 2^63 messages
		return err
	})
	if unwritable(err) {
		err = t.findPoison(ctx, err)
	}
	if err != nil {
		return 0, fmt.Errorf("write %s to %s: %w", b.Source, t.where(), err)
	}
	return watermark, nil
}

// position reads the watermark and locks it, and refuses a writer whose time is over.
func (t *Target) position(ctx context.Context, tx pgx.Tx, source string, mine int64) (uint64, error) {
	var seq, epoch int64
	err := tx.QueryRow(ctx, `SELECT seq, epoch FROM `+table.Watermark+` WHERE source = $1 AND target = $2 FOR UPDATE`,
		source, t.schema.Table).Scan(&seq, &epoch)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, &fault.Error{
			Code: "postgres/watermark-gone", What: fmt.Sprintf("the watermark of %s was deleted while the sink ran", source),
			Fix: "restart the sink; it reads the stream from its start, so empty the table first",
		}
	case err != nil:
		return 0, fmt.Errorf("read watermark: %w", err)
	case epoch != mine:
		return 0, sink.ErrFenced
	}
	return uint64(seq), nil //nolint:gosec // written by Write
}

// findPoison names the rows that made a batch fail with cause. Nothing of it stays.
func (t *Target) findPoison(ctx context.Context, cause error) error {
	var poison []sink.Poison
	found := errors.New("rolled back")
	err := t.transact(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		if poison, err = t.rows.refused(ctx, tx, 0, t.rows.len()); err != nil {
			return err
		}
		return found
	})
	switch {
	case !errors.Is(err, found):
		return err
	case len(poison) == 0: // no row by itself: they were at odds with each other, or with what was there then
		return cause
	}
	return &sink.RowError{Rows: poison}
}

// Flush returns the watermark: Write holds nothing back.
func (t *Target) Flush(ctx context.Context, source string) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var seq int64
	err := t.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT seq FROM `+table.Watermark+` WHERE source = $1 AND target = $2`, source, t.schema.Table).Scan(&seq)
	})
	if err != nil {
		return 0, fmt.Errorf("read watermark of %s: %w", source, err)
	}
	return uint64(seq), nil //nolint:gosec // written by Write
}

// Close closes the connection.
func (t *Target) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = t.conn.Close(ctx) // what was committed is there, and the rest is read again
	return nil
}
