package task

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// OutboxSchema makes the table of EnqueueTx in a PostgreSQL database, from version 13 on. It may be run again. Whoever
// enqueues needs INSERT on the table, a Relay SELECT, UPDATE and DELETE.
const OutboxSchema = `CREATE TABLE IF NOT EXISTS hozo_outbox (
	seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	row     text NOT NULL,              -- name of this row, never used again
	task    text NOT NULL,              -- the task's id
	kind    text NOT NULL,
	args    bytea NOT NULL,
	options jsonb NOT NULL,
	stored  timestamptz NOT NULL DEFAULT now(),
	failed  text                        -- why it cannot be enqueued; NULL: it can
)`

// outboxArguments bounds the arguments of a task in the outbox: what a broker takes at least.
const outboxArguments = 1<<20 - headroomBytes

// Tx is what EnqueueTx needs of a transaction: *sql.Tx has it, and [Pgx] makes it of a pgx.Tx.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Pgx makes a Tx of a transaction of pgx, version 5: EnqueueTx(ctx, task.Pgx(tx), args).
func Pgx[R any](tx interface {
	Exec(ctx context.Context, query string, args ...any) (R, error)
},
) Tx {
	return pgxTx[R]{tx}
}

type pgxTx[R any] struct {
	tx interface {
		Exec(ctx context.Context, query string, args ...any) (R, error)
	}
}

func (p pgxTx[R]) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	_, err := p.tx.Exec(ctx, query, args...)
	return nil, err // nobody asks how many rows
}

// CreateOutbox runs OutboxSchema.
func CreateOutbox(ctx context.Context, db Tx) error {
	if _, err := db.ExecContext(ctx, OutboxSchema); err != nil {
		return fmt.Errorf("create the outbox: %w", err)
	}
	return nil
}

// outboxOptions is how the options of a task wait in the outbox. Times are absolute: the task may wait there, too.
type outboxOptions struct {
	Given    bool          `json:"given,omitempty"` // the task's id is the caller's
	At       time.Time     `json:"at,omitzero"`
	Expires  time.Time     `json:"expires,omitzero"`
	Priority Priority      `json:"priority"`
	Key      string        `json:"key,omitempty"`
	Unique   string        `json:"unique,omitempty"`
	Scope    uniqueScope   `json:"scope,omitempty"`
	Period   time.Duration `json:"period,omitempty"` // ns
	Trace    nats.Header   `json:"trace,omitempty"`
}

// EnqueueTx writes a task into the outbox by a statement of the caller's transaction: it is enqueued if that commits, and
// never if it does not. A [Relay] enqueues it then. It returns the task's id, for Find. Whether there is such a task
// already, by ID or Unique, is found out by the relay, which drops it then; an id is known as long as its task is in
// the queue or its record is kept.
//
// The errors are those of the transaction, and the faults task/bad-id, task/bad-option and bus/too-large.
func (k Kind[T]) EnqueueTx(ctx context.Context, tx Tx, args T, opts ...Option) (id string, err error) {
	e, err := k.options(opts)
	if err != nil {
		return "", err
	}
	data, err := k.encode(args)
	if err != nil {
		return "", err
	}
	if len(data) > outboxArguments {
		return "", &fault.Error{
			Code: bus.CodeTooLarge, What: fmt.Sprintf("arguments of %d bytes are over the limit of %d", len(data), outboxArguments),
			Where: "task " + k.name, Fix: "store the data elsewhere and enqueue its address",
		}
	}
	o := outboxOptions{Given: e.given, At: e.at, Priority: e.priority, Key: e.key, Unique: e.unique, Scope: e.scope, Period: e.period}
	if e.ttl > 0 {
		o.Expires = e.expires()
	}
	if _, traced := bus.TraceOf(ctx); traced {
		o.Trace = nats.Header{}
		bus.PutTrace(ctx, o.Trace, 0)
	}
	options, err := json.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("encode options of task %s: %w", k.name, err)
	}
	if data == nil {
		data = []byte{} // NULL is no arguments
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO hozo_outbox (row, task, kind, args, options) VALUES ($1, $2, $3, $4, $5)`,
		newID(), e.id, k.name, data, string(options))
	if err != nil {
		return "", k.wrap(err)
	}
	return e.id, nil
}

// outboxRow is a row of the outbox.
type outboxRow struct {
	seq  int64
	row  string
	kind string
	args []byte
	enqueue
	trace   nats.Header
	expires time.Time
}

// parse reads the options of a row; task is its task's id.
func (r *outboxRow) parse(task string, options []byte) error {
	var o outboxOptions
	if err := json.Unmarshal(options, &o); err != nil {
		return fmt.Errorf("read its options: %w", err)
	}
	if !validID(task) || o.Priority < High || o.Priority > Low {
		return fmt.Errorf("its id %q or its priority %d cannot be", task, o.Priority)
	}
	r.enqueue = enqueue{id: task, given: o.Given, priority: o.Priority, at: o.At, key: o.Key, unique: o.Unique, scope: o.Scope, period: o.Period}
	r.trace, r.expires = o.Trace, o.Expires
	return nil
}

// message is the task as it is stored. The mark that is stored with it says that it was, so nothing else needs to.
func (r *outboxRow) message(c *bus.Conn, q wire.TaskQueue) (*nats.Msg, error) {
	e := r.enqueue
	e.given = false
	msg, err := Kind[[]byte]{name: r.kind}.message(c, q, &e, r.args)
	if err != nil {
		return nil, err
	}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	maps.Copy(msg.Header, r.trace)
	if !r.expires.IsZero() {
		msg.Header[wire.HeaderExpires] = []string{r.expires.UTC().Format(time.RFC3339Nano)}
	}
	return msg, nil
}
