package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/hozo-dev/hozo/sink"
	"github.com/tidwall/gjson"
	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// rowsAtOnce is how many rows one statement writes. Most of a single row's cost is the call: 16 rows a statement
	// halve it, 64 gain a few per cent more, and beyond that nothing does.
	rowsAtOnce = 64

	// maxParameters is SQLite's own limit of "?" in a statement (SQLITE_MAX_VARIABLE_NUMBER).
	maxParameters = 32766
)

// writer turns batches into rows. Its buffers are reused. Not safe for concurrent use.
type writer struct {
	schema schema
	rows   int       // of one statement of many
	many   *sql.Stmt // rows rows
	single *sql.Stmt
	args   []any      // of the rows not written yet
	at     []sink.Row // the rows that args belong to
}

func newWriter(ctx context.Context, db *sql.DB, s schema) (*writer, error) {
	w := &writer{schema: s, rows: max(1, min(rowsAtOnce, maxParameters/s.Width()))}
	w.args = make([]any, 0, w.rows*s.Width())
	w.at = make([]sink.Row, 0, w.rows)
	var err error
	if w.single, err = db.PrepareContext(ctx, s.insert(1)); err != nil {
		return nil, err
	}
	if w.many, err = db.PrepareContext(ctx, s.insert(w.rows)); err != nil {
		return nil, errors.Join(err, w.single.Close())
	}
	return w, nil
}

func (w *writer) close() error { return errors.Join(w.single.Close(), w.many.Close()) }

// insert writes the rows of b beyond sequence after. When some can never be written, it goes on to find all of those
// and returns a *sink.RowError; the caller rolls back.
func (w *writer) insert(ctx context.Context, tx *sql.Tx, b sink.Batch, after uint64) error {
	many, single := tx.StmtContext(ctx, w.many), tx.StmtContext(ctx, w.single)
	var poison []sink.Poison
	w.clear()
	defer w.clear() // the arguments point into the batch's frames
	err := b.Rows(after, func(row sink.Row) error {
		if err := w.add(row); err != nil {
			poison = append(poison, sink.Poison{ID: row.At, Err: err})
			return nil
		}
		if len(w.at) < w.rows {
			return nil
		}
		_, err := many.ExecContext(ctx, w.args...)
		if err != nil {
			return w.singly(ctx, single, &poison, err)
		}
		w.clear()
		return nil
	})
	if err == nil {
		err = w.singly(ctx, single, &poison, nil)
	}
	if err != nil {
		return fmt.Errorf("insert into %s: %w", w.schema.Table, err)
	}
	if len(poison) > 0 {
		return &sink.RowError{Rows: poison}
	}
	return nil
}

// singly writes the gathered rows one by one, because they are few or because one of them made the whole statement fail
// with cause: those that break a constraint by themselves are added to poison.
func (w *writer) singly(ctx context.Context, single *sql.Stmt, poison *[]sink.Poison, cause error) error {
	if cause != nil && !unwritable(cause) {
		return cause
	}
	width := w.schema.Width()
	for i, row := range w.at {
		_, err := single.ExecContext(ctx, w.args[i*width:(i+1)*width]...)
		switch {
		case err == nil:
		case unwritable(err):
			*poison = append(*poison, sink.Poison{ID: row.At, Err: &fault.Error{
				Code: "sqlite/constraint", Where: w.schema.Table, What: "the table refuses the event", Err: err,
				Fix: "correct the event or the table, then hozo dlq retry",
			}})
		default:
			return err
		}
	}
	w.clear()
	return nil
}

// unwritable reports whether err is the fault of a row's content, which no waiting heals.
func unwritable(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff { // the upper bits refine the code
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
		return true
	}
	return false
}

// add gathers one row.
func (w *writer) add(row sink.Row) error {
	body := text(row.Data)
	if len(w.schema.Paths) > 0 && !jsonscan.Valid(row.Data) {
		return &fault.Error{
			Code: "sqlite/invalid-json", What: "the event is not valid JSON, so it has no columns",
			Fix: "correct the producer, or take columns out of the sink",
		}
	}
	w.at = append(w.at, row)
	w.args = append(w.args, row.ID.Stream, int64(row.ID.Seq), int64(row.ID.Index), row.Subject, body)
	for _, path := range w.schema.Paths {
		w.args = append(w.args, value(gjson.Get(body, path)))
	}
	return nil
}

func (w *writer) clear() {
	clear(w.args)
	clear(w.at)
	w.args, w.at = w.args[:0], w.at[:0]
}

// value gives the SQL value of a JSON one: text, integer, real, 0 or 1, NULL for null and for nothing there, and the
// JSON itself for arrays and objects. A whole number beyond 64 bits keeps its digits as text.
func value(r gjson.Result) any {
	switch r.Type {
	case gjson.String:
		return r.Str
	case gjson.True:
		return int64(1)
	case gjson.False:
		return int64(0)
	case gjson.JSON:
		return r.Raw
	case gjson.Number:
		if n, err := strconv.ParseInt(r.Raw, 10, 64); err == nil {
			return n
		} else if errors.Is(err, strconv.ErrRange) {
			return r.Raw
		}
		return r.Num
	default:
		return nil
	}
}

// text gives data as a string without copying it: the driver copies it into SQLite's memory before the frame goes.
func text(data []byte) string { return unsafe.String(unsafe.SliceData(data), len(data)) }
