package task

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// lookTimeout bounds the looks at records of one turn; what takes longer is made up for by the next.
	lookTimeout = 2 * time.Second

	// pacedTicks is after how many ticks it is looked again whether the queue is limited: 2 s.
	pacedTicks = 20

	// settling is how long after a connection was made a worker leaves tasks alone that were handed out before: their
	// owners come back at the same time and say so.
	settling = 2 * time.Second
)

// observe is the goroutine that reads and writes the records of the tasks in hand, until stopped is closed: it finds out
// whether they were cancelled or have gone to others, makes doubtful ones this worker's again and writes progress.
func (w *pool) observe(work context.Context, stopped <-chan struct{}) {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	for ticks := 1; ; ticks++ {
		select {
		case <-tick.C:
		case <-stopped:
			return
		}
		if !w.conn.Connected() {
			continue
		}
		if w.stale.Load() {
			w.refresh()
		}
		w.lookAt(work, ticks%10 == 0)
		if ticks%pacedTicks == 0 {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(work), lookTimeout)
			_ = w.lookPaced(ctx) // the next time tells
			cancel()
		}
	}
}

// lookAt looks at the records of the tasks that are due for it.
func (w *pool) lookAt(work context.Context, second bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), lookTimeout)
	defer cancel()
	for _, l := range w.leases {
		if l.unseen(time.Now()) && l.regain(ctx, w) != nil {
			return // the broker does not answer: the next turn asks again
		}
		if second {
			l.writeProgress(ctx, w)
		}
	}
	w.frames.each(func(f *frame) {
		if f.lease.unseen(time.Now()) {
			_ = f.regain(ctx, w) // the next turn asks again
		}
	})
}

// spread is the goroutine that has others do what waits here in frames for too long, until stopped is closed.
func (w *pool) spread(work context.Context, stopped <-chan struct{}) {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stopped:
			return
		}
		w.frames.each(func(f *frame) {
			if time.Since(f.came) > heldFor && !w.outdated() {
				w.spill(work, f)
			}
		})
	}
}

// refresh drops without a word what was handed to this process before it was stopped: by now it is others', to whom a
// refusal would do harm, or it is delivered again.
func (w *pool) refresh() {
	if w.conn.NATS().FlushTimeout(lookTimeout) != nil {
		return // the next turn tries again; until then nothing is begun
	}
	for _, l := range w.lanes {
		l.drop()
	}
	w.stale.Store(false)
}

// outdated reports whether the process has been stopped for so long that what waits here may be others'.
func (w *pool) outdated() bool { return w.stale.Load() || time.Since(w.clock.last()) > pauseLimit }

// forgotten reports whether the broker may have handed the task out before and not know it any more: one that was killed
// has lost what it did last.
func (w *pool) forgotten(d *delivery) bool {
	if w.link.Load() == w.first {
		return false
	}
	since := w.since.last()
	return time.Since(since) < ackWait && d.stored.Before(since.Add(leaseSlack))
}

// calm waits until the owners of tasks had the time to say that they are alive, when the connection is a new one.
func (w *pool) calm(ctx context.Context) bool {
	left := settling
	if w.conn.NATS().Stats().Reconnects == w.link.Load() {
		left -= time.Since(w.since.last())
	}
	return left <= 0 || sleep(ctx, left)
}

// moment is a point of time by the monotonic clock, for several goroutines.
type moment struct{ at atomic.Pointer[time.Time] }

func (m *moment) set(t time.Time) { m.at.Store(&t) }

// last returns the time that was set last, which must have been.
func (m *moment) last() time.Time { return *m.at.Load() }
