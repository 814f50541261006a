package task

import (
	"context"
	"errors"
	"time"
)

const (
	retryFind = 200 * time.Millisecond // before asking again for a queue that is not there

	// pauseLimit is how long the keeper may have been silent before the process must have been stopped: by then tasks that
	// wait here may be others'. They have waited for at most heldFor before.
	pauseLimit = ackWait - leaseSlack - heldFor
)

// errStopped is the cause of the context of handlers that outlive DrainGrace.
var errStopped = errors.New("the worker is stopping")

// keep is the one goroutine that looks after all tasks in hand, until stopped is closed: it says that they are alive, and
// sees to it that as many tasks are on their way as handlers can use. It never waits for an answer of the broker, since
// all signs of life would wait with it: the observer does that.
func (w *pool) keep(ctx context.Context, stopped <-chan struct{}) {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	var done, taken uint64
	var idle time.Time // since when nothing was taken
	rate := 0.0
	for {
		select {
		case <-tick.C:
		case <-stopped:
			return
		}
		now := time.Now() // what the ticker says may be from before the process was stopped
		if now.Sub(w.clock.last()) > pauseLimit {
			w.stale.Store(true) // before the clock goes on, so that nothing is begun between
		}
		w.clock.set(now)
		if n := w.conn.NATS().Stats().Reconnects; n != w.link.Load() {
			w.reconnected(now, n)
		}
		for _, l := range w.leases {
			l.keep(now, w.conn.NATS().Publish)
		}
		if n := w.done.Load(); n != done {
			rate = 0.7*float64(n-done) + 0.3*rate // of this tick, and a little of those before
			done = n
		} else {
			rate /= 4
		}
		w.frames.each(func(f *frame) { f.lease.keep(now, w.conn.NATS().Publish) })
		w.ahead.Store(int64(rate * float64(aheadFor) / float64(keeperTick)))
		if ctx.Err() != nil {
			continue
		}
		w.heed(ctx, now)
		if n := w.turn.Load(); n != taken || w.busy.Load() == 0 {
			taken, idle = n, now
		} else if now.Sub(idle) > heldFor && !w.stale.Load() {
			for _, l := range w.lanes {
				l.giveBack()
			}
		}
		w.fill()
	}
}

// reconnected makes the tasks in hand this worker's again, because the broker may have given them to others meanwhile.
func (w *pool) reconnected(now time.Time, link uint64) {
	w.since.set(now)
	w.link.Store(link)
	for _, l := range w.lanes {
		l.renew() // the broker has forgotten what was asked for
	}
	for _, l := range w.leases {
		l.doubt()
	}
	w.frames.each(func(f *frame) { f.lease.doubt() })
}

// heed tells what the broker has against requests.
func (w *pool) heed(ctx context.Context, now time.Time) {
	for _, l := range w.lanes {
		if trouble := l.heed(now); trouble != "" && w.conn.Connected() {
			if now, more := w.quiet.pass(); now {
				w.log.WarnContext(ctx, "the broker refuses a request for tasks", "reason", trouble, "more_not_logged", more)
			}
		}
	}
}

// sleep waits for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
