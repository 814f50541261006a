package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/sink/table"
)

// ownColumns are those of package table, with their types.
var ownColumns = []struct{ name, decl string }{
	{"stream", "TEXT NOT NULL"},
	{"seq", "INTEGER NOT NULL"},
	{"idx", "INTEGER NOT NULL"},
	{"subject", "TEXT NOT NULL"},
	{"body", "TEXT NOT NULL"},
}

// schema is the table and its columns in the order in which they are written.
type schema struct{ table.Schema }

// newSchema checks the names and reports every mistake at once.
func newSchema(cfg Config) (schema, error) {
	s, err := table.New(cfg.Table, cfg.Columns, "sqlite/config", func(lower string) bool { return strings.HasPrefix(lower, "sqlite_") })
	switch cfg.Durability {
	case Process, Power:
	default:
		err = errors.Join(err, &fault.Error{
			Code: "sqlite/config", Kind: fault.Misuse, Where: "durability",
			What: fmt.Sprintf("durability cannot be %q", cfg.Durability), Fix: "use process or power",
		})
	}
	return schema{s}, err
}

// create makes the tables and adds columns that an older table lacks.
func (s schema) create(ctx context.Context, db *sql.DB, path string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin in %s: %w", path, err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+table.Watermark+`(
		source TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL,
		PRIMARY KEY (source, target)) WITHOUT ROWID`); err != nil {
		return fmt.Errorf("create table %s in %s: %w", table.Watermark, path, err)
	}
	decls := make([]string, 0, len(ownColumns)+len(s.Columns))
	for _, c := range ownColumns {
		decls = append(decls, c.name+" "+c.decl)
	}
	for _, name := range s.Columns {
		decls = append(decls, table.Quote(name)) // no type: the value keeps that of the JSON
	}
	if _, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+table.Quote(s.Table)+"("+strings.Join(decls, ", ")+")"); err != nil {
		return fmt.Errorf("create table %s in %s: %w", s.Table, path, err)
	}
	have, err := columnsOf(ctx, tx, s.Table)
	if err != nil {
		return fmt.Errorf("read columns of %s in %s: %w", s.Table, path, err)
	}
	for _, c := range ownColumns {
		if !have[c.name] {
			return &fault.Error{
				Code: "sqlite/schema", Where: path, What: fmt.Sprintf("table %q has no column %q", s.Table, c.name),
				Fix: "name another table under to.table: this one was not made by a sink",
			}
		}
	}
	for _, name := range s.Columns {
		if have[strings.ToLower(name)] {
			continue
		}
		if _, err := tx.ExecContext(ctx, "ALTER TABLE "+table.Quote(s.Table)+" ADD COLUMN "+table.Quote(name)); err != nil {
			return fmt.Errorf("add column %s to %s in %s: %w", name, s.Table, path, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit in %s: %w", path, err)
	}
	return nil
}

// columnsOf returns the columns of a table, in lower case.
func columnsOf(ctx context.Context, tx *sql.Tx, name string) (map[string]bool, error) {
	rows, err := tx.QueryContext(ctx, "SELECT name FROM pragma_table_info(?1)", name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	have := make(map[string]bool)
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		have[strings.ToLower(name)] = true
	}
	return have, rows.Err()
}

// insert returns the statement that writes n rows.
func (s schema) insert(n int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", s.Width()), ",") + ")"
	return "INSERT INTO " + table.Quote(s.Table) + "(" + s.Names() + ") VALUES " + strings.TrimSuffix(strings.Repeat(row+",", n), ",")
}
