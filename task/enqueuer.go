package task

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// DefaultWindow is how many tasks of an Enqueuer may be on their way by default: a few milliseconds of a busy broker.
const DefaultWindow = 2048

// EnqueuerConfig tunes an Enqueuer. The zero value is ready for production.
type EnqueuerConfig struct {
	Window int // tasks that may wait for the broker's acknowledgement; default 2048
}

// Enqueuer stores tasks of one kind without waiting for each: several times as fast as Kind.Enqueue from one goroutine.
// A task is stored for sure once Flush has returned nil. It is safe for concurrent use, and starts no goroutine.
type Enqueuer[T any] struct {
	kind      Kind[T]
	conn      *bus.Conn
	queue     wire.TaskQueue
	admission *admission
	prefix    string        // of subjects of tasks of normal priority
	power     bool          // what is stored must be committed, too
	slots     chan struct{} // one held by each task on its way

	failed atomic.Int64 // len(again)

	mu      sync.Mutex
	again   []*nats.Msg // not known to be stored
	stored  []post      // not known to be on disk; only with power
	refused error       // the first task that cannot be stored
	refuse  int         // how many
}

type post struct {
	msg  *nats.Msg
	seq  uint64
	link uint64
}

// NewEnqueuer makes an Enqueuer. It returns the fault bus/no-route when the kind is not declared under enqueues.
func (k Kind[T]) NewEnqueuer(c *bus.Conn, cfg EnqueuerConfig) (*Enqueuer[T], error) {
	q, err := k.queue(c)
	if err != nil {
		return nil, err
	}
	prefix := runnable(q.Name, k.name, Normal, "")
	return &Enqueuer[T]{
		kind: k, conn: c, queue: q, admission: admissionOf(c, q), prefix: prefix, power: c.MustCommit(prefix),
		slots: make(chan struct{}, cmp.Or(max(cfg.Window, 0), DefaultWindow)),
	}, nil
}

// Enqueue sends a task and returns. It waits while the window is full, and while the broker is away. Its error is about
// this task, with the codes of Kind.Enqueue; that an earlier one could not be stored is told by Flush. Arguments that are
// bytes must not change before Flush. The options ID, Unique and their like are for Kind.Enqueue and refused here.
func (e *Enqueuer[T]) Enqueue(ctx context.Context, args T, opts ...Option) (Handle, error) {
	o, err := e.kind.options(opts)
	if err != nil {
		return Handle{}, err
	}
	if o.given || o.unique != "" {
		return Handle{}, e.kind.wrap(badOption("a task with an id of its own or that is unique needs the broker's word: use Kind.Enqueue"))
	}
	var msg *nats.Msg
	if len(opts) == 0 {
		data, err := e.kind.arguments(e.conn, args)
		if err != nil {
			return Handle{}, err
		}
		msg = &nats.Msg{Subject: e.prefix + o.id, Data: data} // ids made here need no escape
	} else if msg, err = e.kind.message(e.conn, e.queue, &o, args); err != nil {
		return Handle{}, err
	}
	putTrace(ctx, msg)
	if err := e.admission.admit(ctx, 1); err != nil {
		return Handle{}, e.kind.wrap(err)
	}
	e.admission.place(msg)
	if err := e.mend(ctx, cap(e.slots)); err != nil {
		return Handle{}, e.kind.wrap(err)
	}
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return Handle{}, e.kind.wrap(unanswered(msg.Subject, context.Cause(ctx)))
	}
	link := e.conn.Link()
	err = e.conn.Post(msg, func(seq uint64, _ bool, err error) {
		e.answer(msg, seq, link, err)
		<-e.slots
	})
	if err != nil {
		e.answer(msg, 0, link, err)
		<-e.slots
	}
	return e.kind.handle(e.conn, e.queue, o.id), nil
}

// answer notes what became of a post.
func (e *Enqueuer[T]) answer(msg *nats.Msg, seq, link uint64, err error) {
	if err == nil && !e.power {
		e.count(1)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil:
		e.stored = append(e.stored, post{msg, seq, link})
	case fault.Code(err) == bus.CodeUnavailable:
		e.again = append(e.again, msg)
		e.failed.Add(1)
	default:
		e.refuseLocked(err)
	}
}

func (e *Enqueuer[T]) refuseLocked(err error) {
	if e.refused == nil {
		e.refused = err
	}
	e.refuse++
}

// mend commits what is stored, when there are most or more, and stores what is not known to be stored.
func (e *Enqueuer[T]) mend(ctx context.Context, most int) error {
	if e.power {
		e.commit(ctx, most)
	}
	for e.failed.Load() > 0 {
		e.mu.Lock()
		var msg *nats.Msg
		if n := len(e.again); n > 0 {
			msg = e.again[n-1]
			e.again = e.again[:n-1]
			e.failed.Add(-1)
		}
		e.mu.Unlock()
		if msg == nil {
			return nil // another goroutine has it
		}
		_, err := store(ctx, e.conn, ifAbsent(msg), false)
		if err == nil {
			e.count(1)
			continue
		}
		e.answer(msg, 0, 0, err)
		if fault.Code(err) == bus.CodeUnavailable {
			return err // ctx has ended
		}
	}
	return nil
}

// commit has the broker put on disk what it has stored, by one request for all.
func (e *Enqueuer[T]) commit(ctx context.Context, most int) {
	e.mu.Lock()
	var all []post
	if len(e.stored) >= max(most, 1) {
		all, e.stored = e.stored, nil
	}
	e.mu.Unlock()
	if len(all) == 0 {
		return
	}
	last := slices.MaxFunc(all, func(a, b post) int { return cmp.Compare(a.seq, b.seq) }).seq
	link := e.conn.Link()
	err := e.conn.CommitStored(ctx, e.prefix, last, link)
	done := uint64(0)
	for _, p := range all {
		if err != nil || p.link != link { // the broker of another connection may have lost it with the power
			e.answer(p.msg, 0, 0, unanswered(p.msg.Subject, err))
		} else {
			done++
		}
	}
	e.count(done)
}

// count counts tasks that are stored for good.
func (e *Enqueuer[T]) count(n uint64) { e.conn.Counters().AddEdge("enqueues", e.kind.name, n) }

// Flush returns nil once every task of every Enqueue that has returned is stored. After an error of ctx's end another
// Flush goes on. A task that cannot be stored, because it is too large or the disk is full, is told by one Flush.
func (e *Enqueuer[T]) Flush(ctx context.Context) error {
	taken := 0
	defer func() {
		for range taken {
			<-e.slots
		}
	}()
	for range cap(e.slots) { // all of them: nothing is on its way
		select {
		case e.slots <- struct{}{}:
			taken++
		case <-ctx.Done():
			return e.kind.wrap(unanswered(e.prefix, context.Cause(ctx)))
		}
	}
	if err := e.mend(ctx, 1); err != nil {
		return e.kind.wrap(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	err, n := e.refused, e.refuse
	e.refused, e.refuse = nil, 0
	if err == nil {
		return nil
	}
	return fmt.Errorf("enqueue tasks %s: %d cannot be stored, the first because: %w", e.kind.name, n, err)
}

// ifAbsent is a message that the stream refuses when an earlier try was stored and is there still.
func ifAbsent(msg *nats.Msg) *nats.Msg {
	header := nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}
	maps.Copy(header, msg.Header)
	return &nats.Msg{Subject: msg.Subject, Header: header, Data: msg.Data}
}

// putTrace makes the task part of the caller's trace, if there is one.
func putTrace(ctx context.Context, msg *nats.Msg) {
	if _, traced := bus.TraceOf(ctx); !traced {
		return
	}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	bus.PutTrace(ctx, msg.Header, 0)
}
