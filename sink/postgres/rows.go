package postgres

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"unsafe"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/table"
	"github.com/hozo-dev/hozo/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/tidwall/gjson"
)

// rows are the rows of a batch as COPY reads them: text, so that the server makes of each value what the column is. Their
// memory is reused. Not safe for concurrent use.
type rows struct {
	schema table.Schema
	text   []byte
	ends   []int          // in text, of each row
	at     []wire.EventID // where each row's event is stored
}

func (r *rows) len() int { return len(r.ends) }

// clear empties r. A batch much larger than most gives its memory back.
func (r *rows) clear() {
	if cap(r.text) > 4*sink.DefaultBatchBytes {
		r.text = nil
	}
	r.text, r.ends, r.at = r.text[:0], r.ends[:0], r.at[:0]
}

// gather adds the rows of b beyond sequence after. Events that have no columns because they are no JSON are a *sink.RowError.
func (r *rows) gather(b sink.Batch, after uint64) error {
	r.clear()
	var poison []sink.Poison
	err := b.Rows(after, func(row sink.Row) error {
		if len(r.schema.Paths) > 0 && !jsonscan.Valid(row.Data) {
			poison = append(poison, sink.Poison{ID: row.At, Err: &fault.Error{
				Code: "postgres/invalid-json", What: "the event is not valid JSON, so it has no columns",
				Fix: "correct the producer, or take columns out of the sink",
			}})
			return nil
		}
		r.add(row)
		return nil
	})
	if err == nil && len(poison) > 0 {
		return &sink.RowError{Rows: poison}
	}
	return err
}

func (r *rows) add(row sink.Row) {
	b := appendText(r.text, row.ID.Stream)
	b = append(b, '\t')
	b = strconv.AppendUint(b, row.ID.Seq, 10)
	b = append(b, '\t')
	b = strconv.AppendInt(b, int64(row.ID.Index), 10)
	b = append(b, '\t')
	b = appendText(b, row.Subject)
	b = append(b, '\t')
	body := unsafe.String(unsafe.SliceData(row.Data), len(row.Data)) // as long as this call
	b = appendText(b, body)
	for _, path := range r.schema.Paths {
		b = append(b, '\t')
		switch value := gjson.Get(body, path); value.Type {
		case gjson.Null: // null, and nothing there
			b = append(b, `\N`...)
		case gjson.String:
			b = appendText(b, value.Str)
		default: // numbers, true and false, arrays and objects
			b = appendText(b, value.Raw)
		}
	}
	r.text = append(b, '\n')
	r.ends, r.at = append(r.ends, len(r.text)), append(r.at, row.At)
}

// appendText escapes what COPY's text format gives a meaning.
func appendText(to []byte, s string) []byte {
	for {
		at := strings.IndexAny(s, "\\\t\n\r")
		if at < 0 {
			return append(to, s...)
		}
		to = append(append(to, s[:at]...), '\\')
		switch s[at] {
		case '\\':
			to = append(to, '\\')
		case '\t':
			to = append(to, 't')
		case '\n':
			to = append(to, 'n')
		default:
			to = append(to, 'r')
		}
		s = s[at+1:]
	}
}

// copyTo writes the rows from and up to to into the table, in the transaction that conn is in.
func (r *rows) copyTo(ctx context.Context, conn *pgx.Conn, from, to int) error {
	if from == to {
		return nil
	}
	begin := 0
	if from > 0 {
		begin = r.ends[from-1]
	}
	_, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(r.text[begin:r.ends[to-1]]),
		"COPY "+table.Quote(r.schema.Table)+" ("+r.schema.Names()+") FROM STDIN")
	return err
}

// refused returns which of the rows from and up to to the table refuses, by halves: a poisoned batch costs its rows' logarithm in
// COPYs. What it does not refuse is written, and the caller rolls back.
func (r *rows) refused(ctx context.Context, tx pgx.Tx, from, to int) ([]sink.Poison, error) {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return r.copyTo(ctx, tx.Conn(), from, to) }) // a savepoint
	switch {
	case err == nil:
		return nil, nil
	case !unwritable(err):
		return nil, err
	case to-from == 1:
		return []sink.Poison{{ID: r.at[from], Err: &fault.Error{
			Code: "postgres/refused", Where: r.schema.Table, What: "the table refuses the event", Err: err,
			Fix: "correct the event or the table, then hozo dlq retry",
		}}}, nil
	}
	middle := (from + to) / 2
	first, err := r.refused(ctx, tx, from, middle)
	if err != nil {
		return nil, err
	}
	second, err := r.refused(ctx, tx, middle, to)
	return append(first, second...), err
}

// unwritable reports whether err is the fault of a row's content, which no waiting heals: a value that its column cannot be
// (class 22), or a constraint (23).
func unwritable(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23"))
}
