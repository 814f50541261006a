package task

import (
	"context"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// MaxAtomic is how many tasks EnqueueMany stores all or none.
const MaxAtomic = 1000

// The headers of atomic batches, from nats-server.
const (
	headerBatch         = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

// EnqueueMany stores a task for each of args and returns handles in their order. Up to MaxAtomic are stored all or none;
// more in parts of that many, and with an error the handles are of the parts that are stored. opts are of each task; ID,
// Unique and their like are refused. The errors are those of Enqueue.
//
// Without options, and when the kind keeps nothing, the tasks of a part share one message. They are tasks like others, but
// one worker gets them: what it has not begun after half a second it hands on.
func (k Kind[T]) EnqueueMany(ctx context.Context, c *bus.Conn, args []T, opts ...Option) ([]Handle, error) {
	q, err := k.queue(c)
	if err != nil {
		return nil, err
	}
	handles := make([]Handle, 0, len(args))
	for len(args) > 0 {
		n := min(len(args), MaxAtomic)
		made, err := k.enqueuePart(ctx, c, q, args[:n], opts)
		if err != nil {
			return handles, err
		}
		c.Counters().AddEdge("enqueues", k.name, uint64(n))
		handles, args = append(handles, made...), args[n:]
	}
	return handles, nil
}

// enqueuePart stores all or none.
func (k Kind[T]) enqueuePart(ctx context.Context, c *bus.Conn, q wire.TaskQueue, args []T, opts []Option) ([]Handle, error) {
	e, err := k.options(opts)
	if err != nil {
		return nil, err
	}
	if e.given || e.unique != "" {
		return nil, k.wrap(badOption("tasks that are enqueued at once have ids of their own and cannot be unique"))
	}
	made := make([]Handle, 0, len(args))
	var msgs []*nats.Msg
	if len(args) > 1 && k.rides(&e) {
		f := newFramer()
		defer f.free()
		for _, one := range args {
			data, err := k.arguments(c, one)
			if err != nil {
				return nil, err
			}
			id, ok := f.add(data)
			if !ok {
				break
			}
			made = append(made, k.handle(c, q, id))
		}
		if len(made) == len(args) {
			msgs = []*nats.Msg{f.message(q.Name, k.name)}
			putTrace(ctx, msgs[0])
		}
	}
	if msgs == nil { // each a message of its own
		made, msgs, err = k.messages(ctx, c, q, args, opts)
		if err != nil {
			return nil, err
		}
	}
	admission := admissionOf(c, q)
	if err := admission.admit(ctx, int64(len(args))); err != nil {
		return nil, k.wrap(err)
	}
	if admission.paced.Load() { // each waits by itself until it is let out
		if len(msgs) < len(args) {
			if made, msgs, err = k.messages(ctx, c, q, args, opts); err != nil {
				return nil, err
			}
		}
		for _, msg := range msgs {
			admission.place(msg)
		}
	}
	return made, k.wrap(storeAtomic(ctx, c, msgs))
}

func (k Kind[T]) messages(ctx context.Context, c *bus.Conn, q wire.TaskQueue, args []T, opts []Option) ([]Handle, []*nats.Msg, error) {
	made, msgs := make([]Handle, 0, len(args)), make([]*nats.Msg, 0, len(args))
	for _, one := range args {
		e, err := k.options(opts)
		if err != nil {
			return nil, nil, err
		}
		msg, err := k.message(c, q, &e, one)
		if err != nil {
			return nil, nil, err
		}
		putTrace(ctx, msg)
		made, msgs = append(made, k.handle(c, q, e.id)), append(msgs, msg)
	}
	return made, msgs, nil
}

// storeAtomic stores all messages or none, trying until ctx ends.
func storeAtomic(ctx context.Context, c *bus.Conn, msgs []*nats.Msg) error {
	if len(msgs) == 1 {
		_, err := store(ctx, c, msgs[0], false)
		return err
	}
	doubt := false // an earlier try may be stored
	for try := 0; ; try++ {
		lost, err := storeBatch(ctx, c, msgs, doubt)
		switch {
		case err == nil, doubt && fault.Code(err) == bus.CodeWrongSequence:
			return nil
		case fault.Code(err) != bus.CodeUnavailable:
			return err
		}
		doubt = doubt || lost
		if !sleep(ctx, min(storeRetryFirst<<min(try, 10), storeRetryMost)) {
			return err
		}
	}
}

// storeBatch tries once, on condition that no task is there when one may be.
func storeBatch(ctx context.Context, c *bus.Conn, msgs []*nats.Msg, doubt bool) (lost bool, err error) {
	id := newID()
	last := len(msgs) - 1
	for i, msg := range msgs {
		if doubt {
			msg = ifAbsent(msg)
		}
		header := nats.Header{headerBatch: {id}, headerBatchSequence: {strconv.Itoa(i + 1)}}
		maps.Copy(header, msg.Header)
		part := &nats.Msg{Subject: msg.Subject, Header: header, Data: msg.Data}
		if i == last {
			header[headerBatchCommit] = []string{"1"}
			_, lost, err = storeOnce(ctx, c, part)
			return lost, err
		}
		if err := c.NATS().PublishMsg(part); err != nil {
			return false, &fault.Error{
				Code: bus.CodeUnavailable, Where: msg.Subject, What: "the bus is away", Err: err,
				Fix: "see hozo status; it works again when the broker is back",
			}
		}
	}
	return false, nil
}
