package task

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// DefaultRelayInterval is how often an empty outbox is looked at by default. A look costs PostgreSQL some 50 µs.
const DefaultRelayInterval = 100 * time.Millisecond

const (
	// relayBatch is the most rows of a transaction: what an atomic batch takes beside the mark.
	relayBatch = MaxAtomic - 1

	// relayBytes bounds the arguments of a transaction, and so the relay's memory.
	relayBytes = 8 << 20

	// relayMost bounds the pause after a failure.
	relayMost = 5 * time.Second

	// relayMarkTries is how often a batch is stored anew because another relay was faster.
	relayMarkTries = 20
)

// RelayConfig tunes a Relay. The zero value is ready for production.
type RelayConfig struct {
	Interval time.Duration // between two looks at an empty outbox; default 100ms
	Logger   *slog.Logger  // nil discards
}

// Relay enqueues what EnqueueTx has written into a database, in the order of the rows, each exactly once: however often it, the
// broker or the database is killed between two steps, a row is in the queue once and then gone. Several may run on one
// database, in one service: each takes rows that no other holds. Relays of different services share a database when
// they enqueue different kinds; two databases with the same kinds need two services.
//
// The service needs the kinds under enqueues; rows of other kinds stay where they are. A row that cannot be enqueued is
// kept, with the reason in its column failed; set that to NULL to have it tried again.
type Relay struct {
	conn  *bus.Conn
	db    *sql.DB
	cfg   RelayConfig
	ready chan struct{}
	quiet quiet
}

var _ lifecycle.Runner = (*Relay)(nil)

// NewRelay makes a Relay of the outbox in db, a PostgreSQL database by any driver. With pgx, stdlib.OpenDBFromPool makes
// db of a pool. db stays the caller's to close.
func NewRelay(c *bus.Conn, db *sql.DB, cfg RelayConfig) *Relay {
	cfg.Interval = cmp.Or(max(cfg.Interval, 0), DefaultRelayInterval)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Relay{conn: c, db: db, cfg: cfg, ready: make(chan struct{})}
}

// Ready is closed when Run has begun. A database that is away is waited for: the rows are safe there.
func (r *Relay) Ready() <-chan struct{} { return r.ready }

// Run relays until ctx ends. It returns the fault bus/no-route when the service may enqueue nothing.
func (r *Relay) Run(ctx context.Context) error {
	kinds := r.conn.Grant().Enqueues
	if len(kinds) == 0 {
		return &fault.Error{
			Code: bus.CodeNoRoute, What: fmt.Sprintf("service %q may not enqueue anything", r.conn.Grant().Service), Where: "relay",
			Fix: "add enqueues: [KIND] to the service in hozo.yaml",
		}
	}
	close(r.ready)
	r.strangers(ctx, kinds)
	byQueue := map[string][]string{}
	for _, kind := range kinds {
		q := r.conn.Grant().QueueOf(kind).Name
		byQueue[q] = append(byQueue[q], kind)
	}
	var queues sync.WaitGroup // each on its own: one that is full holds up no other
	for _, kinds := range byQueue {
		queues.Go(func() { r.follow(ctx, kinds) })
	}
	queues.Wait()
	return nil
}

// follow relays the kinds of one queue until ctx ends.
func (r *Relay) follow(ctx context.Context, kinds []string) {
	for wait := r.cfg.Interval; ; {
		n, err := r.relay(ctx, kinds)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = min(2*wait, relayMost)
			if now, more := r.quiet.pass(); now {
				r.cfg.Logger.WarnContext(ctx, "the outbox waits", "error", err, "again_in", wait, "more_not_logged", more)
			}
		case n == relayBatch:
			continue // there may be more
		default:
			wait = r.cfg.Interval
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// strangers says that rows wait which this relay will not take: most often a kind is misspelt, or missing in the manifest.
func (r *Relay) strangers(ctx context.Context, kinds []string) {
	list, args := inList(kinds)
	var kind string
	var n int
	err := r.db.QueryRowContext(ctx, `SELECT kind, count(*) FROM hozo_outbox WHERE kind NOT IN (`+list+`) GROUP BY kind LIMIT 1`, args...).Scan(&kind, &n)
	if err == nil {
		r.cfg.Logger.WarnContext(ctx, "the outbox holds tasks of a kind that this service does not enqueue", "kind", kind, "rows", n, "fix", "add it to enqueues of the service that relays it")
	}
}

// inList are placeholders for all words, from $1 on.
func inList(words []string) (list string, args []any) {
	marks := make([]string, 0, len(words))
	for i, word := range words {
		marks, args = append(marks, "$"+strconv.Itoa(i+1)), append(args, word)
	}
	return strings.Join(marks, ", "), args
}

// relay moves up to relayBatch rows of kinds of one queue and returns how many it found.
func (r *Relay) relay(ctx context.Context, kinds []string) (int, error) {
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing, and a broken one is rolled back by the database
	rows, failed, err := r.take(ctx, tx, kinds)
	if err != nil || len(rows)+len(failed) == 0 {
		return 0, err
	}
	bad, err := r.store(ctx, tx, r.conn.Grant().QueueOf(kinds[0]), rows)
	if err != nil {
		return 0, err
	}
	gone := make([]int64, 0, len(rows))
	for _, row := range rows {
		if reason, unfit := bad[row.seq]; unfit {
			failed[row.seq] = reason
		} else {
			gone = append(gone, row.seq)
		}
	}
	step(stepRelayed)
	if err := settleRows(ctx, tx, gone, failed); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	for seq, reason := range failed {
		r.cfg.Logger.ErrorContext(ctx, "a task in the outbox cannot be enqueued and stays there", "seq", seq, "error", reason)
	}
	return len(rows) + len(failed), nil
}

// take locks rows. Those that cannot be read are failed.
func (r *Relay) take(ctx context.Context, tx *sql.Tx, kinds []string) (taken []*outboxRow, failed map[int64]error, err error) {
	list, args := inList(kinds)
	rows, err := tx.QueryContext(ctx, `SELECT seq, row, task, kind, args, options FROM hozo_outbox
		WHERE failed IS NULL AND kind IN (`+list+`) ORDER BY seq LIMIT `+strconv.Itoa(relayBatch)+` FOR UPDATE SKIP LOCKED`, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", noOutbox(err))
	}
	defer func() { _ = rows.Close() }() // Err has told
	failed = map[int64]error{}
	for bytes := 0; bytes < relayBytes && rows.Next(); {
		row := &outboxRow{}
		var task string
		var options []byte
		if err := rows.Scan(&row.seq, &row.row, &task, &row.kind, &row.args, &options); err != nil {
			return nil, nil, fmt.Errorf("read the outbox: %w", err)
		}
		if err := row.parse(task, options); err != nil {
			failed[row.seq] = err
			continue
		}
		bytes += len(row.args)
		taken = append(taken, row)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", noOutbox(err))
	}
	return taken, failed, nil
}

// noOutbox says what is missing when it is the table: PostgreSQL's code for that is in every driver's text.
func noOutbox(err error) error {
	if strings.Contains(err.Error(), "42P01") || strings.Contains(err.Error(), `"hozo_outbox" does not exist`) {
		return &fault.Error{Code: "task/no-outbox", What: "the database has no outbox", Where: "table hozo_outbox", Err: err, Fix: "call task.CreateOutbox, or run task.OutboxSchema with your migrations"}
	}
	return err
}

// store puts the tasks of rows, which are all of queue q, into it, unless they are there. bad are rows that can never be.
func (r *Relay) store(ctx context.Context, tx *sql.Tx, q wire.TaskQueue, rows []*outboxRow) (bad map[int64]error, err error) {
	service := r.conn.Grant().Service
	for try := range relayMarkTries {
		if try > 0 { // another relay was faster, perhaps because the database has taken the rows away from this one
			if _, err := tx.ExecContext(ctx, `SELECT 1`); err != nil {
				return nil, fmt.Errorf("look whether the rows are still locked: %w", err)
			}
		}
		mark, err := readMark(ctx, r.conn, q.Name, service)
		if err != nil {
			return nil, err
		}
		fresh := slices.DeleteFunc(slices.Clone(rows), func(row *outboxRow) bool { return mark.rows[row.row] })
		var msgs []*nats.Msg
		if fresh, msgs, bad, err = r.messages(ctx, q, fresh); err != nil || len(msgs) == 0 {
			return bad, err
		}
		if err := admissionOf(r.conn, q).admitOnce(ctx, int64(len(msgs))); err != nil {
			return nil, err
		}
		// What an earlier mark has named and is in the outbox yet may be another relay's, who is about to delete it, or was
		// killed before.
		doubtful, err := stillThere(ctx, tx, slices.Sorted(maps.Keys(mark.rows)))
		if err != nil {
			return nil, err
		}
		named := doubtful
		for _, row := range fresh {
			named = append(named, row.row)
		}
		_, err = storeBatch(ctx, r.conn, append([]*nats.Msg{mark.message(q.Name, service, named)}, msgs...), false)
		if err == nil {
			for _, row := range fresh {
				r.conn.Counters().AddEdge("enqueues", row.kind, 1)
			}
			return bad, nil
		}
		if fault.Code(err) != bus.CodeWrongSequence {
			return nil, err // it may be stored: the mark will say so
		}
	}
	return nil, errors.New("other relays keep storing first")
}

// messages are the tasks of some of rows. Rows whose task there is already, by its id or its uniqueness, have none, nor
// have bad ones.
func (r *Relay) messages(ctx context.Context, q wire.TaskQueue, rows []*outboxRow) (fresh []*outboxRow, msgs []*nats.Msg, bad map[int64]error, err error) {
	bad = map[int64]error{}
	have := map[string]bool{} // of this batch
	for _, row := range rows {
		k := Kind[[]byte]{name: row.kind}
		h := k.handle(r.conn, q, row.id)
		if row.given {
			known, err := h.knownOnce(ctx)
			if err != nil {
				return nil, nil, nil, err
			}
			if known || have[row.kind+" "+row.id] {
				continue
			}
		}
		msg, err := row.message(r.conn, q)
		if err != nil {
			bad[row.seq] = err
			continue
		}
		if row.unique != "" {
			holder, err := k.lock(ctx, r.conn, q, row.enqueue)
			if err != nil {
				return nil, nil, nil, err
			}
			if holder != h.token() {
				continue
			}
			step(stepLocked)
		}
		have[row.kind+" "+row.id] = true
		fresh, msgs = append(fresh, row), append(msgs, msg)
	}
	return fresh, msgs, bad, nil
}

// stillThere are those of the rows that the outbox holds, whether others are about to delete them or not.
func stillThere(ctx context.Context, tx *sql.Tx, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	list, args := inList(names)
	rows, err := tx.QueryContext(ctx, `SELECT row FROM hozo_outbox WHERE row IN (`+list+`)`, args...)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err has told
	var there []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("read the outbox: %w", err)
		}
		there = append(there, name)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	return there, nil
}

// settleRows deletes what is in the queues and notes why the rest is not.
func settleRows(ctx context.Context, tx *sql.Tx, gone []int64, failed map[int64]error) error {
	if len(gone) > 0 {
		var list []string
		for _, seq := range gone {
			list = append(list, strconv.FormatInt(seq, 10))
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM hozo_outbox WHERE seq IN (`+strings.Join(list, ", ")+`)`); err != nil {
			return fmt.Errorf("delete from the outbox: %w", err)
		}
	}
	for seq, reason := range failed {
		if _, err := tx.ExecContext(ctx, `UPDATE hozo_outbox SET failed = $1 WHERE seq = $2`, reason.Error(), seq); err != nil {
			return fmt.Errorf("note a failure in the outbox: %w", err)
		}
	}
	return nil
}
