package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// aliveInterval is how often the broker is told that a task is being worked on. It waits 5 s for the next sign, so
	// two may be lost.
	aliveInterval = 1500 * time.Millisecond

	// ackWait is the broker's wait for a sign of life. After it the task may be another worker's.
	ackWait = 5 * time.Second

	// settleTimeout bounds one exchange with the broker about a task that has ended.
	settleTimeout = 5 * time.Second

	// settleTries is how often such an exchange is tried while the broker is away; a restart of it takes about a second.
	// Then the task is left to be delivered again.
	settleTries = 6

	// interruptedFactor times Attempts is how often a task may be delivered without any attempt having failed. Workers
	// that stop or crash interrupt tasks through no fault of theirs, but a task that always ends its process must not
	// do so for ever.
	interruptedFactor = 2
)

// attempt runs the handler once for msg and tells the broker how it ended.
func (w *Worker[T]) attempt(work context.Context, msg jetstream.Msg) {
	done := w.conn.Counters().Working()
	defer done()
	meta, err := msg.Metadata()
	if err != nil { // not from JetStream: nothing to acknowledge
		w.log.WarnContext(work, "a message on the queue is no task", "subject", msg.Subject(), "error", err)
		return
	}
	t := Task[T]{
		ID: msg.Headers().Get(wire.HeaderTaskID), Kind: w.kind.name,
		Attempt: int(meta.NumDelivered), EnqueuedAt: meta.Timestamp,
	}
	if t.ID == "" { // enqueued by a foreign client
		t.ID = eventID(meta).String()
	}
	if t.Attempt > 1 {
		w.conn.Counters().Retried.Add(1)
	}
	limited, cancel := context.WithTimeoutCause(work, w.kind.cfg.Timeout, fmt.Errorf("the attempt took longer than %v", w.kind.cfg.Timeout))
	defer cancel()

	settled := make(chan struct{})
	var alive sync.WaitGroup
	alive.Go(func() { keepAlive(limited, settled, msg) })
	defer alive.Wait()
	defer close(settled)

	if t.Attempt > interruptedFactor*w.kind.cfg.Attempts {
		w.bury(work, msg, meta, t, &fault.Error{
			Code: CodeInterrupted, What: fmt.Sprintf("the task was started %d times and no attempt ended", t.Attempt-1),
			Where: "task " + w.kind.name, Fix: "look in the service's log for what ends the process",
		})
		return
	}
	if t.Args, err = w.kind.decode(msg.Data()); err == nil {
		err = w.call(bus.Continue(limited, msg.Headers()), t)
	}
	w.settle(work, limited, msg, meta, t, err)
}

// keepAlive tells the broker that msg is being worked on until ctx ends: then the task may go to another worker even
// though this handler has not returned.
func keepAlive(ctx context.Context, settled <-chan struct{}, msg jetstream.Msg) {
	tick := time.NewTicker(aliveInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = msg.InProgress() // a lost one is made up for by the next
		case <-settled:
			return
		case <-ctx.Done():
			return
		}
	}
}

// call runs the handler and turns a panic into an error.
func (w *Worker[T]) call(ctx context.Context, t Task[T]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if now, more := w.quiet.pass(); now {
				w.log.ErrorContext(ctx, "task handler panicked", "task", t.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "more_not_logged", more)
			}
			err = &fault.Error{Code: CodePanic, What: fmt.Sprintf("the handler panicked: %v", p), Where: "task " + t.Kind, Fix: "see the stack in the service's log"}
		}
	}()
	if len(w.cfg.Use) == 0 {
		return w.fn(ctx, t)
	}
	return bus.Wrap(w.cfg.Use, func(ctx context.Context) error { return w.fn(ctx, t) })(ctx, &bus.Work{
		Kind: "task", Name: t.Kind, Subject: wire.TaskSubject(t.Kind), Attempt: t.Attempt,
	})
}

// settle tells the broker how the attempt ended.
func (w *Worker[T]) settle(work, limited context.Context, msg jetstream.Msg, meta *jetstream.MsgMetadata, t Task[T], err error) {
	switch {
	case err == nil:
		w.finish(work, msg, t)
	case permanent(err):
		w.bury(work, msg, meta, t, err)
	case work.Err() != nil: // interrupted by the stop, not failed
		_ = msg.Nak() // when it is lost, the broker gives the task away after ackWait
	default:
		if deadline, ok := limited.Deadline(); ok && limited.Err() != nil {
			if _, coded := fault.As(err); !coded && errors.Is(err, limited.Err()) {
				err = &fault.Error{Code: CodeTimeout, What: context.Cause(limited).Error(), Where: "task " + t.Kind, Fix: "raise Timeout of the kind, or cut the work into smaller tasks"}
			}
			if time.Since(deadline) > ackWait-aliveInterval {
				return // it may be another worker's by now, and a refusal would take it away from there
			}
		}
		if t.Attempt >= w.kind.cfg.Attempts {
			w.bury(work, msg, meta, t, err)
			return
		}
		delay := w.kind.cfg.delay(t.Attempt)
		if now, more := w.quiet.pass(); now {
			w.log.WarnContext(work, "task failed and will be tried again", "task", t.ID, "attempt", t.Attempt, "delay", delay, "error", err, "more_not_logged", more)
		}
		_ = msg.NakWithDelay(delay) // when it is lost, the broker gives the task away after ackWait
	}
}

// finish takes a done task off the queue and waits until the broker confirms it.
func (w *Worker[T]) finish(work context.Context, msg jetstream.Msg, t Task[T]) {
	err := retry(work, msg.DoubleAck)
	w.conn.Counters().Tasks.Add(1)
	if err != nil {
		w.log.WarnContext(work, "a done task may be run again: the broker did not confirm its end", "task", t.ID, "error", err)
	}
}

// bury makes a dead letter of the task and takes it off the queue. Only a task that is stored in hozo.dlq leaves.
func (w *Worker[T]) bury(work context.Context, msg jetstream.Msg, meta *jetstream.MsgMetadata, t Task[T], cause error) {
	err := retry(work, func(ctx context.Context) error {
		return storeDead(ctx, w.conn, dead{
			id: eventID(meta), task: t.ID, subject: msg.Subject(), data: msg.Data(), attempts: t.Attempt, err: cause, header: msg.Headers(),
		})
	})
	if err != nil {
		w.log.WarnContext(work, "a dead task could not be stored and stays in the queue", "task", t.ID, "error", err)
		_ = msg.NakWithDelay(w.kind.cfg.MaxBackoff) // when it is lost, the task comes back sooner
		return
	}
	// When this is lost the task is run again and buried in the same grave.
	_ = msg.TermWithReason("stored in " + wire.DeadStream)
	if now, more := w.quiet.pass(); now {
		w.log.ErrorContext(work, "task is a dead letter", "task", t.ID, "attempts", t.Attempt, "code", codeOf(cause), "error", cause, "more_not_logged", more)
	}
}

// retry tries an exchange with the broker settleTries times. It goes on while work is done, since a task that has ended
// should be settled even then, but each try is bounded.
func retry(work context.Context, exchange func(context.Context) error) error {
	var err error
	for try := range settleTries {
		if try > 0 && !sleep(work, retryPull<<try) {
			return err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(work), settleTimeout)
		err = exchange(ctx)
		cancel()
		if err == nil || errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return nil
		}
	}
	return err
}

// eventID names a queued task like an event.
func eventID(meta *jetstream.MsgMetadata) wire.EventID {
	return wire.EventID{Stream: wire.TaskStream, Seq: meta.Sequence.Stream}
}
