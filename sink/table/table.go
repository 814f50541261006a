// Package table is what the sinks of SQL databases have in common: a table with a row for each event, its names, and the
// columns that are picked from the event's JSON.
package table

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/tidwall/gjson"
)

// Watermark is the table that holds one row for each source and table.
const Watermark = "hozo_watermark"

// Own are the columns that are written for every event: where it was stored, and its bytes.
var Own = [...]string{"stream", "seq", "idx", "subject", "body"}

// namePattern is what tables and columns may be called: what needs no thought in any SQL. 63 bytes is PostgreSQL's limit.
var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// Schema is a table and its columns in the order in which they are written: Own, and then Columns.
type Schema struct {
	Table   string
	Columns []string // the user's, sorted
	Paths   []string // of each, in gjson's syntax
}

// New checks the names and reports every mistake at once, as faults of code. columns are names to dotted paths; reserved
// reports tables, in lower case, that the database keeps for itself.
func New(name string, columns map[string]string, code string, reserved func(lower string) bool) (Schema, error) {
	s := Schema{Table: name}
	var errs []error
	bad := func(where, what string) {
		errs = append(errs, &fault.Error{
			Code: code, Kind: fault.Misuse, Where: where, What: what,
			Fix: "use letters, digits and _, up to 63, and begin with a letter",
		})
	}
	if lower := strings.ToLower(name); !namePattern.MatchString(name) || lower == Watermark || reserved(lower) {
		bad("to.table", fmt.Sprintf("table cannot be called %q", name))
	}
	seen := make(map[string]bool)
	for _, own := range Own {
		seen[own] = true
	}
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		switch lower := strings.ToLower(name); {
		case !namePattern.MatchString(name):
			bad("to.columns."+name, fmt.Sprintf("column cannot be called %q", name))
		case seen[lower]:
			bad("to.columns."+name, fmt.Sprintf("there is a column %q already", name))
		case columns[name] == "":
			bad("to.columns."+name, fmt.Sprintf("column %q has an empty path", name))
		default:
			seen[lower] = true
			s.Columns = append(s.Columns, name)
			s.Paths = append(s.Paths, literalPath(columns[name]))
		}
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

// Width is the number of columns.
func (s Schema) Width() int { return len(Own) + len(s.Columns) }

// Names are all columns, quoted where they need it, with commas between.
func (s Schema) Names() string {
	names := slices.Clone(Own[:])
	for _, name := range s.Columns {
		names = append(names, Quote(name))
	}
	return strings.Join(names, ",")
}

// Quote makes a checked name safe where it is also a word of SQL.
func Quote(name string) string { return `"` + name + `"` }
