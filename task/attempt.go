package task

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/fault"
)

// begin takes what has come as the tasks of leases[n] and so on, and returns how many there are then. What needs no
// handler is dealt with here: tombstones, stale copies, tasks that have ended or are too late.
func (w *pool) begin(work context.Context, it item, leases []*lease, n int, cancel context.CancelCauseFunc) int {
	if it.frame == nil {
		return w.beginOne(work, it.msg, leases, n, cancel)
	}
	for i := range it.n {
		d, err := it.frame.delivery(it.first + i)
		n = w.beginWith(work, &d, err, leases, n, cancel)
	}
	return n
}

func (w *pool) beginOne(work context.Context, msg *nats.Msg, leases []*lease, n int, cancel context.CancelCauseFunc) int {
	d, err := parseDelivery(msg)
	if d.seq == 0 { // not from JetStream: nothing to acknowledge
		w.log.WarnContext(work, "a message on the queue is no task", "subject", msg.Subject, "error", err)
		return n
	}
	if w.outdated() || ((d.delivered > 1 || w.forgotten(&d)) && w.adopted(&d)) {
		return n
	}
	return w.beginWith(work, &d, err, leases, n, cancel)
}

func (w *pool) beginWith(work context.Context, d *delivery, err error, leases []*lease, n int, cancel context.CancelCauseFunc) int {
	l := leases[n]
	w.busy.Add(1)
	l.take(*d, cancel)
	if err != nil {
		err = &fault.Error{Code: CodeBadHeader, What: "the task cannot be read", Where: "task " + w.kind, Err: err, Fix: "correct the program that enqueued it; see decision 0018 for the headers"}
	}
	if w.fit(work, l, err) {
		w.notePace(&l.d, paceBegun)
		return n + 1
	}
	w.leave(work, l)
	return n
}

// leave ends the lease of a task that is dealt with, or left to be delivered again.
func (w *pool) leave(work context.Context, l *lease) {
	f, i, settled := l.d.frame, l.d.index, l.settled
	l.drop()
	w.busy.Add(-1)
	w.done.Add(1)
	if f != nil && f.done(i, settled) {
		w.settleFrame(work, f)
	}
}

// adopted reports whether the task is in the hands of this worker already.
func (w *pool) adopted(d *delivery) bool {
	for _, l := range w.leases {
		if l.adopt(d, w.conn.NATS().Publish) {
			return true
		}
	}
	adopted := false
	w.frames.each(func(f *frame) { adopted = adopted || f.lease.adopt(d, w.conn.NATS().Publish) })
	return adopted
}

// fit reports whether the task should be run now; bad is why it cannot be read.
func (w *pool) fit(work context.Context, l *lease, bad error) bool {
	l.recMu.Lock()
	defer l.recMu.Unlock()
	d := &l.d
	if bad == nil && d.cancelled {
		if hash := d.lock(untilDone) + d.lock(untilStart); hash != "" {
			_ = retry(work, func(ctx context.Context) error { return unlock(ctx, w.conn, w.kind, d.token, hash) }) // Cancel has done it, too
		}
		w.acknowledge(l)
		return false
	}
	if bad == nil && !d.released && w.paced.Load() {
		w.setAside(work, l)
		return false
	}
	again := d.frame == nil && (d.delivered > 1 || w.forgotten(d))
	if again && !w.calm(work) {
		return false // stopped meanwhile: it is delivered again
	}
	known := again || d.copy > 1 || d.flow != "" || w.notes.has(d.token)
	if !known && (d.apart != "" || (d.frame != nil && d.frame.marked.Load())) {
		err := retry(work, func(ctx context.Context) error {
			r, err := getRecord(ctx, w.conn, w.kind, d.token)
			known = r.revision > 0
			return err
		})
		if err != nil {
			return false // it is delivered again
		}
	}
	if known {
		var run bool
		if err := retry(work, func(ctx context.Context) (err error) { run, err = w.claim(ctx, l); return err }); err != nil {
			w.log.WarnContext(work, "a task is left to be delivered again: its record was not reached", "task", d.id, "error", err)
			return false
		}
		if !run {
			return false
		}
	}
	switch {
	case bad != nil:
		w.bury(work, l, bad)
		return false
	case l.rec.strikes > w.task.Crashes:
		w.bury(work, l, &fault.Error{
			Code: CodeInterrupted, What: fmt.Sprintf("the task was started %d times in a row and no attempt ended", l.rec.strikes-1),
			Where: "task " + w.kind, Fix: "look in the service's log for what ends the process",
		})
		return false
	case !d.expires.IsZero() && time.Now().After(d.expires):
		w.expire(work, l)
		return false
	}
	if d.flow != "" && !w.enter(work, l) {
		return false
	}
	if hash := d.lock(untilStart); hash != "" {
		if err := retry(work, func(ctx context.Context) error { return unlock(ctx, w.conn, w.kind, d.token, hash) }); err != nil {
			return false // it is delivered again
		}
	}
	return true
}

// attempt runs the handler for some tasks and tells the broker how each ended.
func (w *pool) attempt(work, run context.Context, leases []*lease, outcomes []outcome) {
	working := w.conn.Counters().Working()
	clear(outcomes)
	for _, l := range leases {
		if l.failed() > 0 || l.d.delivered > 1 {
			w.conn.Counters().Retried.Add(1)
		}
	}
	w.call(run, leases, outcomes)
	step(stepHandled)
	for i, l := range leases {
		w.settle(work, run, l, outcomes[i])
		w.leave(work, l)
	}
	working()
}

// call runs the handler and turns a panic into an error.
func (w *pool) call(run context.Context, leases []*lease, outcomes []outcome) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if now, more := w.quiet.pass(); now {
			w.log.ErrorContext(run, "task handler panicked", "task", leases[0].d.id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "more_not_logged", more)
		}
		err := &fault.Error{Code: CodePanic, What: fmt.Sprintf("the handler panicked: %v", p), Where: "task " + w.kind, Fix: "see the stack in the service's log"}
		for i := range outcomes {
			if outcomes[i].err == nil || len(outcomes) == 1 || outcomes[i].err == errUnfinished {
				outcomes[i].err = err
			}
		}
	}()
	w.do(run, leases, outcomes)
}
