package task

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
)

const (
	// aliveInterval is how often the broker is told that a task is being worked on. It waits 5 s for the next sign, so
	// two may be lost.
	aliveInterval = 1500 * time.Millisecond

	// ackWait is the broker's wait for a sign of life. After it the task may be another worker's.
	ackWait = 5 * time.Second

	// leaseSlack is kept free of ackWait: what is said to the broker takes time to get there.
	leaseSlack = time.Second

	// lookAfter is how long a task must run before it is looked at whether it was cancelled without a word.
	lookAfter = 5 * time.Second
)

var (
	alive    = []byte("+WPI")
	finished = []byte("+ACK")
)

// errLost is the cause of a handler's end whose worker was silent for too long.
var errLost = errors.New("the worker was silent for too long: the task may be another worker's by now")

// errCancelled is the cause of a handler's end whose task was cancelled.
var errCancelled = errors.New("the task was cancelled")

// lease is a worker's hold on one task, from its delivery to its outcome. A worker has as many as it may hold tasks and
// uses them again and again. The keeper of the worker looks at all of them.
type lease struct {
	conn *bus.Conn

	mu     sync.Mutex
	d      delivery
	held   bool      // a task is in hand
	told   time.Time // when the broker was last told, or the task came
	looked time.Time // when it was last looked at whether it is cancelled
	cancel context.CancelCauseFunc
	alone  bool // the handler has this task only, so that its context may end when the task is gone
	lost   bool // the lease is over, or in doubt
	gone   bool // the task is cancelled or somebody else's: nothing is to be said of it any more

	settled bool // what became of the task is stored wherever it has to be; only the handler's goroutine looks

	// recMu guards the record, of which the lease is the only writer while it holds.
	recMu    sync.Mutex
	rec      record // revision 0: there is none
	progress int
	note     string
	news     bool     // progress that is not in the record
	flow     *waiting // what a workflow has in store for the task; nil when that is not known

	steps steps // of this attempt
}

// take begins the lease of d.
func (l *lease) take(d delivery, cancel context.CancelCauseFunc) {
	now := time.Now()
	l.mu.Lock()
	l.d, l.held, l.told, l.looked, l.cancel, l.lost, l.gone = d, true, now, now, cancel, false, false
	l.settled = false
	l.mu.Unlock()
	l.recMu.Lock()
	l.rec = record{copy: d.copy, failed: d.failed}
	l.progress, l.note, l.news, l.flow = 0, "", false, nil
	l.recMu.Unlock()
	l.steps.reset()
}

// drop ends the lease.
func (l *lease) drop() {
	l.mu.Lock()
	l.held, l.cancel = false, nil
	l.d.msg, l.d.data, l.d.frame = nil, nil, nil
	l.mu.Unlock()
}

// holds reports whether the task is surely nobody else's.
func (l *lease) holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.d.frame != nil {
		return l.held && !l.gone && l.d.frame.lease.holds()
	}
	return l.held && !l.lost && time.Since(l.told) < ackWait-leaseSlack
}

// keep tells the broker that the task is being worked on, if it is time to.
func (l *lease) keep(now time.Time, publish func(subject string, data []byte) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || l.d.frame != nil { // a frame says that it is alive, and is claimed, as a whole
		return
	}
	since := now.Sub(l.told)
	// From here on a sign of life might speak for somebody else's delivery.
	l.lost = l.lost || since >= ackWait-leaseSlack
	if !l.lost && since >= aliveInterval && publish(l.d.msg.Reply, alive) == nil {
		l.told = now
	}
}

// doubt has the task in hand claimed anew before anything is said of it.
func (l *lease) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = l.lost || (l.held && l.d.frame == nil)
}

// unseen reports whether it is time to look what has become of the task elsewhere: it may have been cancelled, or have
// gone to another worker.
func (l *lease) unseen(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || l.gone || (!l.lost && now.Sub(l.looked) < lookAfter) {
		return false
	}
	l.looked = now
	return true
}

// regain makes the task surely this worker's again, when nobody else has claimed it, by a claim of its own. When
// somebody has, or the task was cancelled, its handler ends. A task whose end is being told is left alone.
func (l *lease) regain(ctx context.Context, w *pool) error {
	if !l.recMu.TryLock() {
		return nil
	}
	defer l.recMu.Unlock()
	token, ok := l.current()
	if !ok {
		return nil
	}
	now, err := getRecord(ctx, w.conn, w.kind, token)
	switch {
	case err != nil:
		return err
	case now.state == Cancelled:
		l.end(token, errCancelled)
		return nil
	case now.revision != l.rec.revision && !l.wrote(w, now):
		l.end(token, errLost)
		return nil
	}
	l.rec.revision = now.revision
	l.mu.Lock()
	lost := l.lost && l.d.frame == nil // a frame is claimed as a whole
	l.mu.Unlock()
	if !lost {
		return nil
	}
	next := l.rec
	next.state, next.strikes = Running, max(next.strikes, 1)
	next.revision, err = putRecord(ctx, w.conn, w.kind, token, next, 0)
	if errors.Is(err, errMoved) {
		return nil // the next look says by whom
	}
	if err != nil {
		return err
	}
	l.rec = next
	l.renew(token, w.conn.NATS().Publish)
	return nil
}

// wrote reports whether now is what this worker has written of the running task without hearing that it was stored.
func (l *lease) wrote(w *pool, now record) bool {
	return now.revision > l.rec.revision && now.state == Running && now.copy == l.rec.copy && now.owner == w.conn.Grant().User
}

// renew goes on with a lease that was in doubt.
func (l *lease) renew(token string, publish func(subject string, data []byte) error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || l.d.token != token || publish(l.d.msg.Reply, alive) != nil {
		return false
	}
	l.told, l.lost = time.Now(), false
	return true
}

// adopt takes msg, another delivery of the task in hand: the broker has lost track of the worker for a while.
func (l *lease) adopt(d *delivery, publish func(subject string, data []byte) error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || l.gone || l.d.token != d.token || l.d.seq != d.seq {
		return false
	}
	if publish(d.msg.Reply, alive) == nil {
		l.told, l.lost = time.Now(), false
	}
	return true
}

// end ends the handler when the task in hand is token, and has its outcome kept back. The handler of a batch goes on: the
// other tasks are good.
func (l *lease) end(token string, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || l.d.token != token {
		return
	}
	l.lost, l.gone = true, true
	if l.alone && l.cancel != nil {
		l.cancel(cause)
	}
}

// lose ends the handler of a task that came in f, because the frame is somebody else's.
func (l *lease) lose(f *frame) {
	l.mu.Lock()
	token, its := l.d.token, l.held && l.d.frame == f
	l.mu.Unlock()
	if its {
		l.end(token, errLost)
	}
}

// over reports whether the task is cancelled or somebody else's.
func (l *lease) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone
}

// current names the task in hand.
func (l *lease) current() (token string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.d.token, l.held
}

// report notes progress, which the keeper writes into the record.
func (l *lease) report(percent int, note string) {
	l.recMu.Lock()
	defer l.recMu.Unlock()
	l.progress, l.note, l.news = min(max(percent, 0), 100), note, true
}

// writeProgress puts what was reported into the record of a running task.
func (l *lease) writeProgress(ctx context.Context, w *pool) {
	if !l.recMu.TryLock() {
		return // its end is being told
	}
	defer l.recMu.Unlock()
	if _, ok := l.current(); !ok || !l.news || l.over() {
		return
	}
	next := l.rec
	next.state, next.strikes, next.progress, next.note = Running, max(next.strikes, 1), l.progress, l.note
	l.news = l.record(ctx, w, next, 0) != nil // the next turn tries again
}

// record replaces the record of the task on condition that it is as the lease left it.
func (l *lease) record(ctx context.Context, w *pool, next record, keep time.Duration) error {
	next.revision = l.rec.revision
	revision, err := putRecord(ctx, w.conn, w.kind, l.d.token, next, keep)
	if errors.Is(err, errMoved) {
		now, getErr := getRecord(ctx, w.conn, w.kind, l.d.token)
		if getErr == nil && l.wrote(w, now) {
			next.revision = now.revision
			revision, err = putRecord(ctx, w.conn, w.kind, l.d.token, next, keep)
		}
	}
	if err == nil {
		next.revision = revision
		l.rec = next
	}
	return err
}

// failed is how many attempts have failed.
func (l *lease) failed() int {
	l.recMu.Lock()
	defer l.recMu.Unlock()
	return l.rec.failed
}
