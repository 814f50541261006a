package task

import (
	"context"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
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
func (k Kind[T]) EnqueueMany(ctx context.Context, c *bus.Conn, args []T, opts ...Option) ([]Handle, error) {
	q, err := k.queue(c)
	if err != nil {
		return nil, err
	}
	handles := make([]Handle, 0, len(args))
	for len(args) > 0 {
		n := min(len(args), MaxAtomic)
		msgs, made := make([]*nats.Msg, 0, n), handles
		for _, one := range args[:n] {
			e, err := k.options(opts)
			if err != nil {
				return handles, err
			}
			if e.given || e.unique != "" {
				return handles, k.wrap(badOption("tasks that are enqueued at once have ids of their own and cannot be unique"))
			}
			msg, err := k.message(c, q, &e, one)
			if err != nil {
				return handles, err
			}
			putTrace(ctx, msg)
			msgs, made = append(msgs, msg), append(made, k.handle(c, q, e.id))
		}
		admission := admissionOf(c, q)
		if err := admission.admit(ctx, int64(n)); err != nil {
			return handles, k.wrap(err)
		}
		for _, msg := range msgs {
			admission.place(msg)
		}
		if err := storeAtomic(ctx, c, msgs); err != nil {
			return handles, k.wrap(err)
		}
		c.Counters().AddEdge("enqueues", k.name, uint64(n))
		handles, args = made, args[n:]
	}
	return handles, nil
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
