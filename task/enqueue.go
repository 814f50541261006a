package task

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// headroomBytes is kept free beside the arguments, so that the headers of a dead letter (error text, ids, subjects)
	// fit into the same message.
	headroomBytes = 8 << 10

	// storeTimeout is how long one try to store a task waits for the broker's answer.
	storeTimeout = 5 * time.Second

	storeRetryFirst = 50 * time.Millisecond // between tries
	storeRetryMost  = time.Second

	// scheduleGrain is the delay below which a task is not worth a schedule, which is up to 250 ms late.
	scheduleGrain = 10 * time.Millisecond
)

// The headers of schedules, from nats-server.
const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
)

// Enqueue stores a task and returns a handle to it once the broker has acknowledged it. While the broker is away it tries until
// ctx ends. The errors are faults: task/queue-full, task/bad-id, task/bad-option, bus/unavailable, bus/store-full,
// bus/too-large and bus/no-route (the kind is not declared under enqueues).
func (k Kind[T]) Enqueue(ctx context.Context, c *bus.Conn, args T, opts ...Option) (Handle, error) {
	e, err := k.options(opts)
	if err != nil {
		return Handle{}, err
	}
	q, err := k.queue(c)
	if err != nil {
		return Handle{}, err
	}
	msg, err := k.message(c, q, &e, args)
	if err != nil {
		return Handle{}, err
	}
	putTrace(ctx, msg)
	admission := admissionOf(c, q)
	if err := admission.admit(ctx, 1); err != nil {
		return Handle{}, k.wrap(err)
	}
	admission.place(msg)
	h := k.handle(c, q, e.id)
	if e.given {
		if known, err := h.known(ctx); err != nil || known {
			h.Duplicate = known
			return h, k.wrap(err)
		}
	}
	if e.unique != "" {
		holder, err := k.lock(ctx, c, q, e)
		if err != nil {
			return Handle{}, k.wrap(err)
		}
		if holder != h.token() {
			return k.holder(h, holder)
		}
		step(stepLocked)
	}
	h.Duplicate, err = store(ctx, c, msg, e.given)
	if err == nil && !h.Duplicate {
		c.Counters().AddEdge("enqueues", k.name, 1)
	}
	return h, k.wrap(err)
}

func (k Kind[T]) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("enqueue task %s: %w", k.name, err)
}

// queue returns the queue of the kind, if the service may enqueue it.
func (k Kind[T]) queue(c *bus.Conn) (wire.TaskQueue, error) {
	grant := c.Grant()
	if !slices.Contains(grant.Enqueues, k.name) {
		return wire.TaskQueue{}, k.notEnqueued(grant.Service, nil)
	}
	return grant.QueueOf(k.name), nil
}

// message is the task as it is stored.
func (k Kind[T]) message(c *bus.Conn, q wire.TaskQueue, e *enqueue, args T) (*nats.Msg, error) {
	data, err := k.arguments(c, args)
	if err != nil {
		return nil, err
	}
	token := wire.TaskToken(e.id)
	msg := &nats.Msg{Subject: runnable(q.Name, k.name, e.priority, token), Data: data}
	set := func(name, value string) {
		if msg.Header == nil {
			msg.Header = nats.Header{}
		}
		msg.Header[name] = []string{value}
	}
	if e.given {
		set(jetstream.MsgIDHeader, k.name+":"+e.id)
		set(jetstream.ExpectedLastSubjSeqHeader, "0")
	}
	if e.unique != "" && e.scope != forPeriod {
		set(wire.HeaderUnique, string(e.scope)+":"+e.unique)
	}
	if e.key != "" {
		set(wire.HeaderKey, e.key)
	}
	if e.ttl > 0 {
		set(wire.HeaderExpires, e.expires().UTC().Format(time.RFC3339Nano))
	}
	if time.Until(e.at) > scheduleGrain {
		set(headerSchedule, "@at "+e.at.UTC().Format(time.RFC3339Nano))
		set(headerScheduleTarget, msg.Subject)
		msg.Subject = wire.ScheduleSubject(q.Name, k.name, token)
	}
	return msg, nil
}

// arguments encodes args if they are not too large.
func (k Kind[T]) arguments(c *bus.Conn, args T) ([]byte, error) {
	data, err := k.encode(args)
	if err != nil {
		return nil, err
	}
	if limit := int(c.NATS().MaxPayload()) - headroomBytes; len(data) > limit {
		return nil, &fault.Error{
			Code: bus.CodeTooLarge, What: fmt.Sprintf("arguments of %d bytes are over the limit of %d", len(data), limit),
			Where: "task " + k.name, Fix: "store the data elsewhere and enqueue its address",
		}
	}
	return data, nil
}

// runnable is wire.TaskSubject without fmt: it is made for every task.
func runnable(queue, kind string, p Priority, token string) string {
	b := make([]byte, 0, 128)
	b = append(append(b, wire.TaskStream...), '.')
	b = append(append(b, wire.StreamName(queue)...), ".q."...)
	b = append(append(b, wire.StreamName(kind)...), '.')
	b = append(strconv.AppendInt(b, int64(p), 10), '.')
	return string(append(b, token...))
}

// store stores a task, trying until ctx ends. It reports whether it was there already, which matters only to a task
// whose id the caller has given: that of any other is its own, and being there means that an earlier try was stored.
func store(ctx context.Context, c *bus.Conn, msg *nats.Msg, given bool) (duplicate bool, err error) {
	for try := 0; ; try++ {
		var lost bool
		duplicate, lost, err = storeOnce(ctx, c, msg)
		switch {
		case err == nil:
			return duplicate && try == 0, nil
		case fault.Code(err) == bus.CodeWrongSequence:
			return given && try == 0, nil
		case fault.Code(err) != bus.CodeUnavailable:
			return false, err
		}
		if lost && len(msg.Header[jetstream.ExpectedLastSubjSeqHeader]) == 0 { // it may be stored
			msg = ifAbsent(msg)
		}
		if !sleep(ctx, min(storeRetryFirst<<min(try, 10), storeRetryMost)) {
			return false, err
		}
	}
}

// storeOnce tries once. lost says that the message may be stored although there is an error.
func storeOnce(ctx context.Context, c *bus.Conn, msg *nats.Msg) (duplicate, lost bool, err error) {
	type answer struct {
		seq       uint64
		duplicate bool
		err       error
	}
	answered := make(chan answer, 1) // one answer
	link := c.Link()
	if err := c.Post(msg, func(seq uint64, duplicate bool, err error) { answered <- answer{seq, duplicate, err} }); err != nil {
		return false, false, err
	}
	limit := time.NewTimer(storeTimeout)
	defer limit.Stop()
	select {
	case a := <-answered:
		if a.err == nil {
			a.err = c.CommitStored(ctx, msg.Subject, a.seq, link)
		}
		return a.duplicate, fault.Code(a.err) == bus.CodeUnavailable, a.err
	case <-limit.C:
		return false, true, unanswered(msg.Subject, nil)
	case <-ctx.Done():
		return false, true, unanswered(msg.Subject, context.Cause(ctx))
	}
}

func unanswered(subject string, cause error) error {
	return &fault.Error{
		Code: bus.CodeUnavailable, Where: subject, What: "no answer from the bus in time", Err: cause,
		Fix: "see hozo status; it works again when the broker is back",
	}
}

// EnqueueFrom stores a task from inside the handler of a stage: before the handler's event is acknowledged, and only if
// the handler returns nil. Its id is made from the event's id, the kind and the arguments, so that handling the event
// again enqueues nothing twice; equal arguments from one event are one task. The options ID, Unique and their like are
// refused with task/bad-option. The other errors are the faults bus/no-route and bus/too-large, which park the event
// when the handler returns them.
func (k Kind[T]) EnqueueFrom(out *bus.Out, args T, opts ...Option) error {
	e, err := k.options(opts)
	if err != nil {
		return err
	}
	if e.given || e.unique != "" {
		return k.wrap(badOption("a task of an event has an id of its own and cannot be unique by another"))
	}
	c := out.Conn()
	data, err := k.encode(args)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	// 64 bits tell apart what one event enqueues.
	e.id, e.given = out.EventID().String()+":"+hex.EncodeToString(sum[:8]), true
	q, err := k.queue(c)
	if err != nil {
		return err
	}
	msg, err := k.message(c, q, &e, args)
	if err != nil {
		return err
	}
	// The message id alone recognises a repeat here. An expected sequence would fail the whole frame.
	delete(msg.Header, jetstream.ExpectedLastSubjSeqHeader)
	if err := out.Store(msg); err != nil {
		return k.wrap(err)
	}
	return nil
}

func (k Kind[T]) notEnqueued(service string, cause error) error {
	return &fault.Error{
		Code: bus.CodeNoRoute, What: fmt.Sprintf("service %q may not enqueue %q", service, k.name), Where: "task " + k.name,
		Fix: fmt.Sprintf("add %s to enqueues of service %s in hozo.yaml", k.name, service), Err: cause,
	}
}
