package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/sink/table"
	"github.com/jackc/pgx/v5"
)

// ownTypes are those of package table's own columns, where the table is made here.
var ownTypes = [len(table.Own)]string{"text NOT NULL", "bigint NOT NULL", "integer NOT NULL", "text NOT NULL", "json NOT NULL"}

// createLock keeps two sinks from making the same table at once: "hozo".
const createLock = 0x686f7a6f

// create makes the tables and adds columns that an older table lacks. What is there needs no right to create.
func create(ctx context.Context, tx pgx.Tx, s table.Schema) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, createLock); err != nil {
		return err
	}
	have, err := columnsOf(ctx, tx, table.Watermark)
	if err != nil {
		return err
	}
	if len(have) == 0 {
		if _, err := tx.Exec(ctx, `CREATE TABLE `+table.Watermark+` (
			source text NOT NULL, target text NOT NULL, seq bigint NOT NULL, epoch bigint NOT NULL, PRIMARY KEY (source, target))`); err != nil {
			return fmt.Errorf("create table %s: %w", table.Watermark, err)
		}
	}
	if have, err = columnsOf(ctx, tx, s.Table); err != nil {
		return err
	}
	if len(have) == 0 {
		var decls []string
		for i, name := range table.Own {
			decls = append(decls, name+" "+ownTypes[i])
		}
		for _, name := range s.Columns {
			decls = append(decls, table.Quote(name)+" text")
		}
		if _, err := tx.Exec(ctx, "CREATE TABLE "+table.Quote(s.Table)+" ("+strings.Join(decls, ", ")+")"); err != nil {
			return fmt.Errorf("create table %s: %w", s.Table, err)
		}
		return nil
	}
	for _, name := range table.Own {
		if !slices.Contains(have, name) {
			return &fault.Error{
				Code: "postgres/schema", What: fmt.Sprintf("table %q has no column %q", s.Table, name),
				Fix: "name another table under to.table: this one was not made for a sink",
			}
		}
	}
	for _, name := range s.Columns {
		if slices.Contains(have, name) {
			continue
		}
		if _, err := tx.Exec(ctx, "ALTER TABLE "+table.Quote(s.Table)+" ADD COLUMN "+table.Quote(name)+" text"); err != nil {
			return fmt.Errorf("add column %s to %s: %w", name, s.Table, err)
		}
	}
	return nil
}

// columnsOf returns the columns of a table; none when there is no such table.
func columnsOf(ctx context.Context, tx pgx.Tx, name string) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, table.Quote(name))
	var have []string
	if err == nil {
		have, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read columns of %s", name), err)
	}
	return have, nil
}
