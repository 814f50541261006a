package hozotest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

// The headers of schedules, from nats-server.
const (
	headerSchedule = "Nats-Schedule"
	headerTarget   = "Nats-Schedule-Target"
	atTime         = "@at "
)

// scheduled is a task that waits in the broker for its time.
type scheduled struct {
	stream jetstream.Stream
	msg    *jetstream.RawStreamMsg
	due    time.Time
}

// Advance lets d pass for what waits in the broker for its time: tasks with In or At, and those that wait for their next
// attempt. What comes due is run in its order, each with a Drain behind it, so that what it has wait in turn is seen, too.
// Advance(0) is Drain.
func (e *Env) Advance(d time.Duration) {
	e.t.Helper()
	for {
		e.Drain()
		if d <= 0 {
			return
		}
		waiting := e.waiting()
		if len(waiting) == 0 {
			return
		}
		step := min(max(time.Until(waiting[0].due), 0), d)
		d -= step
		for _, one := range waiting {
			e.bring(one, step)
		}
		if time.Until(waiting[0].due.Add(-step)) > 0 {
			return // the next one is farther away than d
		}
	}
}

// waiting are the tasks that wait for their time, the next one first.
func (e *Env) waiting() []scheduled {
	e.t.Helper()
	ctx, cancel := e.patience()
	defer cancel()
	var all []scheduled
	for _, q := range e.layout.Queues {
		stream, err := e.js().Stream(ctx, wire.StreamName(wire.QueueStream(q.Name)))
		if err != nil {
			e.t.Fatalf("look at queue %s: %v", q.Name, err)
		}
		err = each(ctx, stream, wire.TaskStream+"."+wire.StreamName(q.Name)+".s.>", func(msg *jetstream.RawStreamMsg) {
			text, timed := strings.CutPrefix(msg.Header.Get(headerSchedule), atTime)
			if due, err := time.Parse(time.RFC3339Nano, text); timed && err == nil { // else a tombstone, or none of ours
				all = append(all, scheduled{stream, msg, due})
			}
		})
		if err != nil {
			e.t.Fatalf("look at queue %s: %v", q.Name, err)
		}
	}
	slices.SortStableFunc(all, func(a, b scheduled) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.msg.Sequence, b.msg.Sequence))
	})
	return all
}

// bring has a task come due earlier by d: at once when that has passed.
func (e *Env) bring(one scheduled, d time.Duration) {
	e.t.Helper()
	ctx, cancel := e.patience()
	defer cancel()
	due := one.due.Add(-d)
	next := nats.NewMsg(one.msg.Subject)
	next.Data = one.msg.Data
	now := time.Until(due) <= 0
	if now {
		next.Subject = one.msg.Header.Get(headerTarget)
	} else {
		next.Header.Set(headerSchedule, atTime+due.UTC().Format(time.RFC3339Nano))
		next.Header.Set(headerTarget, one.msg.Header.Get(headerTarget))
	}
	for name, values := range one.msg.Header {
		if !strings.HasPrefix(name, "Nats-") {
			next.Header[name] = values
		}
	}
	if now {
		// The broker may do the same at this moment: whoever removes the schedule has stored the task, or does.
		if err := one.stream.DeleteMsg(ctx, one.msg.Sequence); err != nil {
			if gone(ctx, one) {
				return
			}
			e.t.Fatalf("bring a task forward: %v", err)
		}
	}
	if _, err := e.js().PublishMsg(ctx, next); err != nil {
		e.t.Fatalf("bring a task forward: %v", err)
	}
}

// gone reports whether the broker has fired a schedule by itself.
func gone(ctx context.Context, one scheduled) bool {
	_, err := one.stream.GetMsg(ctx, one.msg.Sequence)
	return errors.Is(err, jetstream.ErrMsgNotFound)
}

// each calls fn for every message of a stream on a subject, oldest first.
func each(ctx context.Context, stream jetstream.Stream, subject string, fn func(*jetstream.RawStreamMsg)) error {
	for seq := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		seq = msg.Sequence + 1
		fn(msg)
	}
}
