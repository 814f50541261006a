package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/tidwall/gjson"
)

// ownColumns are written for every event: where it was stored, and its bytes.
var ownColumns = []struct{ name, decl string }{
	{"stream", "TEXT NOT NULL"},
	{"seq", "INTEGER NOT NULL"},
	{"idx", "INTEGER NOT NULL"},
	{"subject", "TEXT NOT NULL"},
	{"body", "TEXT NOT NULL"},
}

// namePattern is what tables and columns may be called: what needs no thought in any SQL. 63 bytes is PostgreSQL's limit.
var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// schema is the table and its columns in the order in which they are written.
type schema struct {
	table   string
	columns []string // user columns, sorted
	paths   []string // of each, in gjson's syntax
}

// newSchema checks the names and reports every mistake at once.
func newSchema(cfg Config) (schema, error) {
	s := schema{table: cfg.Table}
	var errs []error
	bad := func(where, what string) {
		errs = append(errs, &fault.Error{
			Code: "sqlite/config", Kind: fault.Misuse, Where: where, What: what,
			Fix: "use letters, digits and _, up to 63, and begin with a letter",
		})
	}
	if !namePattern.MatchString(cfg.Table) || strings.HasPrefix(strings.ToLower(cfg.Table), "sqlite_") || strings.EqualFold(cfg.Table, watermarkTable) {
		bad("to.table", fmt.Sprintf("table cannot be called %q", cfg.Table))
	}
	seen := make(map[string]bool)
	for _, c := range ownColumns {
		seen[c.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Columns)) {
		switch lower := strings.ToLower(name); {
		case !namePattern.MatchString(name):
			bad("to.columns."+name, fmt.Sprintf("column cannot be called %q", name))
		case seen[lower]:
			bad("to.columns."+name, fmt.Sprintf("there is a column %q already", name))
		case cfg.Columns[name] == "":
			bad("to.columns."+name, fmt.Sprintf("column %q has an empty path", name))
		default:
			seen[lower] = true
			s.columns = append(s.columns, name)
			s.paths = append(s.paths, literalPath(cfg.Columns[name]))
		}
	}
	switch cfg.Durability {
	case Process, Power:
	default:
		errs = append(errs, &fault.Error{
			Code: "sqlite/config", Kind: fault.Misuse, Where: "durability",
			What: fmt.Sprintf("durability cannot be %q", cfg.Durability), Fix: "use process or power",
		})
	}
	return s, errors.Join(errs...)
}

// literalPath turns a dotted path into gjson's syntax, with every sign that gjson gives a meaning taken as it is.
func literalPath(dotted string) string {
	parts := strings.Split(dotted, ".")
	for i, part := range parts {
		parts[i] = gjson.Escape(part)
	}
	return strings.Join(parts, ".")
}

// create makes the tables and adds columns that an older table lacks.
func (s schema) create(ctx context.Context, db *sql.DB, path string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin in %s: %w", path, err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+watermarkTable+`(
		source TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL,
		PRIMARY KEY (source, target)) WITHOUT ROWID`); err != nil {
		return fmt.Errorf("create table %s in %s: %w", watermarkTable, path, err)
	}
	decls := make([]string, 0, len(ownColumns)+len(s.columns))
	for _, c := range ownColumns {
		decls = append(decls, c.name+" "+c.decl)
	}
	for _, name := range s.columns {
		decls = append(decls, quote(name)) // no type: the value keeps that of the JSON
	}
	if _, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+quote(s.table)+"("+strings.Join(decls, ", ")+")"); err != nil {
		return fmt.Errorf("create table %s in %s: %w", s.table, path, err)
	}
	have, err := columnsOf(ctx, tx, s.table)
	if err != nil {
		return fmt.Errorf("read columns of %s in %s: %w", s.table, path, err)
	}
	for _, c := range ownColumns {
		if !have[c.name] {
			return &fault.Error{
				Code: "sqlite/schema", Where: path, What: fmt.Sprintf("table %q has no column %q", s.table, c.name),
				Fix: "name another table under to.table: this one was not made by a sink",
			}
		}
	}
	for _, name := range s.columns {
		if have[strings.ToLower(name)] {
			continue
		}
		if _, err := tx.ExecContext(ctx, "ALTER TABLE "+quote(s.table)+" ADD COLUMN "+quote(name)); err != nil {
			return fmt.Errorf("add column %s to %s in %s: %w", name, s.table, path, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit in %s: %w", path, err)
	}
	return nil
}

// columnsOf returns the columns of a table, in lower case.
func columnsOf(ctx context.Context, tx *sql.Tx, table string) (map[string]bool, error) {
	rows, err := tx.QueryContext(ctx, "SELECT name FROM pragma_table_info(?1)", table)
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
	names := make([]string, 0, s.width())
	for _, c := range ownColumns {
		names = append(names, c.name)
	}
	for _, name := range s.columns {
		names = append(names, quote(name))
	}
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", s.width()), ",") + ")"
	return "INSERT INTO " + quote(s.table) + "(" + strings.Join(names, ",") + ") VALUES " +
		strings.TrimSuffix(strings.Repeat(row+",", n), ",")
}

func (s schema) width() int { return len(ownColumns) + len(s.columns) }

// quote makes a checked name safe where it is also a word of SQL.
func quote(name string) string { return `"` + name + `"` }
