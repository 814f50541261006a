package task

import (
	"context"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// orphanAge is how old a lock must be before it may be taken over because its task is nowhere: longer than it takes
// whoever locked it to store the task, all tries included.
var orphanAge = 30 * time.Second

// lock takes the uniqueness of e for its task, and returns the token of the task that holds it: e's own, or another's.
func (k Kind[T]) lock(ctx context.Context, c *bus.Conn, q wire.TaskQueue, e enqueue) (holder string, err error) {
	subject, token := wire.UniqueSubject(k.name, e.unique), wire.TaskToken(e.id)
	for {
		held, err := directGet(ctx, c, wire.RecordStream, subject)
		if err != nil {
			return "", err
		}
		var revision uint64
		if held != nil {
			revision = held.seq
			if other := string(held.data); other != "" && other != token {
				if held.header.Get(wire.HeaderUnique) == string(forPeriod) || time.Since(held.time) < orphanAge {
					return other, nil
				}
				orphan, err := k.gone(ctx, c, q, other)
				if err != nil || !orphan {
					return other, err
				}
			}
		}
		var keep time.Duration
		if e.scope == forPeriod {
			keep = e.period
		}
		err = putLock(ctx, c, subject, token, e.scope, revision, keep)
		if err == nil {
			return token, nil
		}
		if fault.Code(err) != bus.CodeWrongSequence {
			return "", err
		} // somebody was faster, or an earlier try was stored: look again
	}
}

func putLock(ctx context.Context, c *bus.Conn, subject, token string, scope uniqueScope, revision uint64, keep time.Duration) error {
	h := nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)}, wire.HeaderUnique: {string(scope)}}
	if keep > 0 {
		h[jetstream.MsgTTLHeader] = []string{keep.Round(time.Second).String()}
	}
	_, err := c.PublishFrame(ctx, subject, h, []byte(token))
	return err
}

// gone reports whether the task is neither in the queue nor on its way to a further attempt.
func (k Kind[T]) gone(ctx context.Context, c *bus.Conn, q wire.TaskQueue, token string) (bool, error) {
	where, err := find(ctx, c, q.Name, k.name, token)
	return where == nil && err == nil, err
}

// known reports whether there is a task with the id of h, or a record of one. The broker alone would find only one that
// waits on the same subject, or came within ten minutes and since its last start.
func (h Handle) known(ctx context.Context) (bool, error) {
	for try := 0; ; try++ {
		once, cancel := context.WithTimeout(ctx, storeTimeout)
		known, err := h.knownOnce(once)
		cancel()
		if fault.Code(err) != bus.CodeUnavailable || !sleep(ctx, min(storeRetryFirst<<min(try, 10), storeRetryMost)) {
			return known, err
		}
	}
}

func (h Handle) knownOnce(ctx context.Context) (bool, error) {
	r, err := getRecord(ctx, h.conn, h.Kind, h.token())
	if r.revision > 0 || err != nil {
		return r.revision > 0, err
	}
	msg, err := find(ctx, h.conn, h.queue, h.Kind, h.token())
	if msg != nil || err != nil {
		return msg != nil, err
	}
	r, err = getRecord(ctx, h.conn, h.Kind, h.token()) // it may have ended between the two looks
	return r.revision > 0, err
}

// find returns the message of a task: scheduled, or runnable with any priority; nil when there is none.
func find(ctx context.Context, c *bus.Conn, queue, kind, token string) (*stored, error) {
	stream := wire.QueueStream(queue)
	if framed, err := findFrame(ctx, c, queue, kind, token); err != nil || framed != nil {
		return framed, err // first: what leaves a frame is stored by itself before
	}
	// A schedule becomes a runnable task and never the other way round while nobody has it, so this order misses none.
	scheduled, err := directGet(ctx, c, stream, wire.ScheduleSubject(queue, kind, token))
	if err != nil || (scheduled != nil && scheduled.header.Get(headerSchedule) != "") {
		return scheduled, err
	}
	waiting, err := findWaiting(ctx, c, queue, kind, token)
	if err != nil || waiting != nil {
		return waiting, err
	}
	for p := High; p <= Low; p++ {
		msg, err := directGet(ctx, c, stream, runnable(queue, kind, p, token))
		if err != nil {
			return nil, err
		}
		if msg != nil && State(msg.header.Get(wire.HeaderState)) != Cancelled {
			return msg, nil
		}
	}
	return findWaiting(ctx, c, queue, kind, token) // a worker may have set it aside meanwhile
}

// findFrame returns the message of many tasks that holds a task; nil when there is none.
func findFrame(ctx context.Context, c *bus.Conn, queue, kind, token string) (*stored, error) {
	frame, i, ok := wire.SplitFramedID(token)
	if !ok {
		return nil, nil
	}
	msg, err := directGet(ctx, c, wire.QueueStream(queue), wire.FrameSubject(queue, kind, "*", frame))
	if err != nil || msg == nil {
		return nil, err
	}
	if _, count, err := splitFrameSubject(msg.sub); err != nil || i >= count {
		return nil, nil
	}
	return msg, nil
}

// unlock gives the uniqueness of a task back, if it is the task's. hash is what its header says.
func unlock(ctx context.Context, c *bus.Conn, kind, token, hash string) error {
	subject := wire.UniqueSubject(kind, hash)
	held, err := directGet(ctx, c, wire.RecordStream, subject)
	if err != nil || held == nil || string(held.data) != token {
		return err
	}
	err = putLock(ctx, c, subject, "", untilDone, held.seq, time.Second) // JetStream's shortest time to live
	if fault.Code(err) == bus.CodeWrongSequence {
		return nil // given back by an earlier try, or taken over
	}
	return err
}

// holder makes the handle of the task that has the uniqueness.
func (k Kind[T]) holder(h Handle, token string) (Handle, error) {
	id, err := wire.ParseTaskToken(token)
	if err != nil {
		return h, k.wrap(&fault.Error{Code: CodeBadHeader, What: "the holder of the uniqueness cannot be read", Err: err, Fix: "see decision 0018"})
	}
	h.ID, h.Duplicate = id, true
	return h, nil
}
