package task

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// settleTimeout bounds one exchange with the broker about a task that has ended.
	settleTimeout = 5 * time.Second

	// settleTries is how often such an exchange is tried while the broker is away; a restart of it takes about a second.
	// Then the task is left to be delivered again.
	settleTries = 6

	// shortDelay is the longest that a task may wait in the consumer for its next attempt. There it keeps its place among
	// those in hand, and is served before fresh tasks; a schedule costs more but neither.
	shortDelay = 2 * time.Second
)

// claim makes the task of a delivery that is not the first, or a copy that is not, this worker's: from then on whatever
// an earlier owner says of it is refused. It reports whether the task should be run; if not, it is dealt with.
func (w *pool) claim(ctx context.Context, l *lease) (run bool, err error) {
	d := &l.d
	r, err := getRecord(ctx, w.conn, w.kind, d.token)
	if err != nil {
		if fault.Code(err) != CodeBadHeader {
			return false, err
		}
		r = record{revision: r.revision} // its next one is readable
	}
	switch {
	case r.revision == 0:
		if d.delivered > 1 {
			r.strikes = 1 // the first start left no word
		}
		r.failed = d.failed
	case r.copy > d.copy:
		if r.state == Retrying && r.copy == d.copy+1 {
			if err := w.mend(ctx, l, r); err != nil {
				return false, err
			}
		}
		w.acknowledge(l)
		return false, nil
	case r.copy < d.copy: // of an earlier copy
		r = record{revision: r.revision, failed: d.failed}
	case r.state == Dead:
		err := storeDead(ctx, w.conn, letter{delivery: *d, queue: w.queue, attempts: max(r.failed, 1), code: r.code, err: r.err})
		if err == nil {
			err = w.close(ctx, l, r)
		}
		return false, err
	case r.state.terminal():
		return false, w.close(ctx, l, r)
	case r.state == Running && r.owner != w.conn.Grant().User && time.Since(r.at) < ackWait:
		return false, nil // claimed a moment ago by somebody who goes on: it comes again if not
	}
	next := record{state: Running, copy: d.copy, failed: r.failed, strikes: r.strikes + 1, code: r.code, err: r.err, revision: r.revision}
	revision, err := putRecord(ctx, w.conn, w.kind, d.token, next, 0)
	if errors.Is(err, errMoved) {
		return false, nil // somebody else was faster
	}
	next.revision = revision
	l.rec = next
	return err == nil, err
}

// close takes a task off the queue that has ended as its record says, when what follows it is told and its lock is free.
func (w *pool) close(ctx context.Context, l *lease, ended record) error {
	if err := w.follow(ctx, l, ended); err != nil {
		return err
	}
	if l.d.flow != "" {
		step(stepFollowed)
	}
	w.release(ctx, l)
	w.acknowledge(l)
	return nil
}

// closeAll is close with several tries. A task that cannot be taken off is delivered again.
func (w *pool) closeAll(work context.Context, l *lease) {
	if err := retry(work, func(ctx context.Context) error { return w.close(ctx, l, l.rec) }); err != nil {
		w.log.WarnContext(work, "a task that has ended stays in the queue until what follows it is told", "task", l.d.id, "error", err)
	}
}

// mend stores the next copy of a task whose worker ended after it had recorded that there would be one. It may have
// stored it.
func (w *pool) mend(ctx context.Context, l *lease, r record) error {
	next, err := find(ctx, w.conn, w.queue, w.kind, l.d.token)
	if err != nil {
		return err
	}
	if next != nil && next.seq > l.d.seq {
		return nil
	}
	now, err := getRecord(ctx, w.conn, w.kind, l.d.token)
	if err != nil || now.revision != r.revision {
		return err // it has been run meanwhile
	}
	return w.storeCopy(ctx, l, r)
}

// settle tells the broker how an attempt ended.
func (w *pool) settle(work, run context.Context, l *lease, o outcome) {
	l.recMu.Lock()
	defer l.recMu.Unlock()
	err := o.err
	snoozed, isSnooze := errors.AsType[*snooze](err)
	switch {
	case l.over(): // its record says what has become of it
	case err == nil:
		w.finish(work, l, o.result)
	case isSnooze:
		w.again(work, l, snoozed.d, record{failed: l.rec.failed})
	case permanent(err):
		w.bury(work, l, err)
	case work.Err() != nil: // interrupted by the stop, not failed
		w.again(work, l, 0, record{failed: l.rec.failed})
	default:
		w.fail(work, run, l, err)
	}
}

// fail has the task run again later, or gives it up.
func (w *pool) fail(work, run context.Context, l *lease, err error) {
	if late, ok := errors.AsType[*overrun](context.Cause(run)); ok && errors.Is(err, run.Err()) {
		if _, coded := fault.As(err); !coded {
			err = &fault.Error{Code: CodeTimeout, What: late.Error(), Where: "task " + w.kind, Fix: "raise Timeout of the kind, or cut the work into smaller tasks"}
		}
	}
	failed := l.rec.failed + 1
	if failed >= w.task.Attempts {
		w.bury(work, l, err)
		return
	}
	delay := w.task.delay(failed)
	if now, more := w.quiet.pass(); now {
		w.log.WarnContext(work, "task failed and will be tried again", "task", l.d.id, "attempt", failed, "delay", delay, "error", err, "more_not_logged", more)
	}
	w.again(work, l, delay, record{failed: failed, code: codeOf(err), err: err.Error()})
}

// again has the task run again after delay; next says what is to be known of it until then.
func (w *pool) again(work context.Context, l *lease, delay time.Duration, next record) {
	next.state, next.copy, next.due = Retrying, l.d.copy, time.Now().Add(delay)
	scheduled := delay > w.short || l.d.frame != nil // what came in a frame cannot be refused alone
	if scheduled {
		next.copy++
	}
	err := retry(work, func(ctx context.Context) error { return l.record(ctx, w, next, 0) })
	step(stepRetry)
	if err == nil && scheduled {
		err = retry(work, func(ctx context.Context) error { return w.storeCopy(ctx, l, next) })
		if err == nil {
			step(stepCopied)
			w.acknowledge(l)
			return
		}
	}
	switch {
	case errors.Is(err, errMoved): // it is somebody else's by now
	case err != nil:
		w.log.WarnContext(work, "a task is left to be delivered again: its record was not reached", "task", l.d.id, "error", err)
	case !l.holds(): // a refusal might take it away from somebody else; it is delivered again anyway
	case delay <= 0:
		_ = w.conn.NATS().Publish(l.d.msg.Reply, refused) // when it is lost, the broker gives the task away after ackWait
	default:
		_ = w.conn.NATS().Publish(l.d.msg.Reply, []byte(`-NAK {"delay": `+strconv.FormatInt(int64(delay), 10)+`}`)) // likewise
	}
}

// storeCopy stores the next copy of the task, to be run when r is due.
func (w *pool) storeCopy(ctx context.Context, l *lease, r record) error {
	h := l.d.carried()
	h[wire.HeaderCopy] = []string{strconv.Itoa(r.copy)}
	delete(h, wire.HeaderAttempts)
	if r.failed > 0 {
		h[wire.HeaderAttempts] = []string{strconv.Itoa(r.failed)}
	}
	h[headerSchedule] = []string{"@at " + r.due.UTC().Format(time.RFC3339Nano)}
	h[headerScheduleTarget] = []string{runnable(w.queue, w.kind, l.d.priority, l.d.token)}
	h[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	_, err := w.conn.PublishFrame(ctx, wire.ScheduleSubject(w.queue, w.kind, l.d.token), h, l.d.data)
	if fault.Code(err) == bus.CodeWrongSequence {
		return nil // stored by an earlier try
	}
	return err
}

// finish takes a done task off the queue.
func (w *pool) finish(work context.Context, l *lease, result []byte) {
	recorded := w.task.Keep > 0 || l.rec.revision > 0 || l.d.lock(untilDone) != "" || l.steps.any() || !l.holds()
	if recorded {
		next := record{state: Done, copy: l.d.copy, failed: l.rec.failed, progress: l.progress, note: l.note, result: result}
		err := retry(work, func(ctx context.Context) error { return l.record(ctx, w, next, l.kept(w, minRecord)) })
		if errors.Is(err, errMoved) {
			return // it is somebody else's by now, or cancelled
		}
		if err != nil {
			w.log.WarnContext(work, "a done task may be run again: its end could not be recorded", "task", l.d.id, "error", err)
			return
		}
		step(stepDone)
	}
	w.conn.Counters().Tasks.Add(1)
	w.conn.Counters().AddEdge("handles", w.kind, 1)
	if !recorded {
		w.acknowledge(l)
		return
	}
	w.closeAll(work, l)
	w.forgetSteps(l)
}

// release gives the lock of a task back that has ended. When that fails, whoever wants the lock next finds out that the
// task is gone.
func (w *pool) release(ctx context.Context, l *lease) {
	if hash := l.d.lock(untilDone); hash != "" {
		_ = retry(ctx, func(ctx context.Context) error { return unlock(ctx, w.conn, w.kind, l.d.token, hash) })
		step(stepReleased)
	}
}

// acknowledge takes the message off the queue. When that is lost, the message comes again and its record, if it has
// one, says that it is dealt with.
func (w *pool) acknowledge(l *lease) {
	defer w.notePace(&l.d, paceLeft)
	l.settled = true
	if l.d.frame != nil {
		return // its message goes when all tasks of it are settled
	}
	if err := w.conn.NATS().Publish(l.d.msg.Reply, finished); err != nil {
		if now, more := w.quiet.pass(); now {
			w.log.Warn("a task that has ended may be delivered again: the broker is away", "task", l.d.id, "error", err, "more_not_logged", more)
		}
	}
}

// bury makes a dead letter of the task and takes it off the queue. Only a task that is stored in hozo.dlq leaves. The
// record comes first, so that nobody buries what somebody else is doing.
func (w *pool) bury(work context.Context, l *lease, cause error) {
	attempts := l.rec.failed + 1
	if fault.Code(cause) == CodeInterrupted {
		attempts = l.rec.failed
	}
	next := record{state: Dead, copy: l.d.copy, failed: attempts, code: codeOf(cause), err: cause.Error()}
	err := retry(work, func(ctx context.Context) error { return l.record(ctx, w, next, l.kept(w, deadKeep)) })
	if errors.Is(err, errMoved) {
		return
	}
	if err == nil {
		step(stepDead)
		err = retry(work, func(ctx context.Context) error {
			return storeDead(ctx, w.conn, letter{delivery: l.d, queue: w.queue, attempts: max(attempts, 1), code: next.code, err: next.err})
		})
	}
	if err != nil {
		w.log.WarnContext(work, "a dead task could not be stored and stays in the queue", "task", l.d.id, "error", err)
		return // it is delivered again, and its record says that it is dead
	}
	step(stepLetter)
	w.closeAll(work, l)
	if now, more := w.quiet.pass(); now {
		w.log.ErrorContext(work, "task is a dead letter", "task", l.d.id, "attempts", attempts, "code", next.code, "error", cause, "more_not_logged", more)
	}
}

// deadKeep is how long it is known that a task is dead: its letter may be sent back within that time.
const deadKeep = 30 * 24 * time.Hour

// expire drops a task that nobody began in time.
func (w *pool) expire(work context.Context, l *lease) {
	next := record{state: Expired, copy: l.d.copy, failed: l.rec.failed, code: CodeExpired, err: "no worker began the task before " + l.d.expires.Format(time.RFC3339)}
	err := retry(work, func(ctx context.Context) error { return l.record(ctx, w, next, l.kept(w, minRecord)) })
	if err != nil {
		return // it is delivered again, or somebody else's
	}
	w.closeAll(work, l)
}

// kept is how long the end of the task is known: at least least.
func (l *lease) kept(w *pool, least time.Duration) time.Duration {
	keep := max(w.task.Keep, least)
	if l.flow != nil {
		keep = max(keep, l.flow.Keep)
	}
	return keep
}

// retry tries an exchange with the broker settleTries times. It goes on while work is done, since a task that has ended
// should be settled even then, but each try is bounded.
func retry(work context.Context, exchange func(context.Context) error) error {
	var err error
	for try := range settleTries {
		if try > 0 && !sleep(work, retryFind<<try) {
			return err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(work), settleTimeout)
		err = exchange(ctx)
		cancel()
		if err == nil || errors.Is(err, errMoved) {
			return err
		}
	}
	return fmt.Errorf("after %d tries: %w", settleTries, err)
}
