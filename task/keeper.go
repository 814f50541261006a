package task

import (
	"context"
	"errors"
	"time"
)

const (
	retryFind = 200 * time.Millisecond // before asking again for a queue that is not there

	// lookTimeout bounds a look at a record; what takes longer is made up for by the next.
	lookTimeout = 2 * time.Second
)

// errStopped is the cause of the context of handlers that outlive DrainGrace.
var errStopped = errors.New("the worker is stopping")

// keep is the one goroutine that looks after all tasks in hand, until stopped is closed: it says that they are alive,
// writes their progress, and sees to it that as many tasks are on their way as handlers can use.
func (w *pool) keep(ctx, work context.Context, stopped <-chan struct{}) {
	tick := time.NewTicker(keeperTick)
	defer tick.Stop()
	var done, taken uint64
	var idle time.Time // since when nothing was taken
	rate, ticks := 0.0, 0
	connection := w.conn.NATS().Stats().Reconnects
	for {
		var now time.Time
		select {
		case now = <-tick.C:
		case <-stopped:
			return
		}
		ticks++
		w.alive(work, now, ticks%10 == 0)
		if n := w.done.Load(); n != done {
			rate = 0.7*float64(n-done) + 0.3*rate // of this tick, and a little of those before
			done = n
		} else {
			rate /= 4
		}
		w.ahead.Store(min(int64(rate*float64(aheadFor)/float64(keeperTick)), mostAhead))
		if ctx.Err() != nil {
			continue
		}
		if n := w.conn.NATS().Stats().Reconnects; n != connection {
			connection = n
			for _, l := range w.lanes {
				l.renew() // the broker has forgotten what was asked for
			}
		}
		w.heed(ctx, now)
		if n := w.turn.Load(); n != taken || w.busy.Load() == 0 {
			taken, idle = n, now
		} else if now.Sub(idle) > heldFor {
			for _, l := range w.lanes {
				l.giveBack()
			}
		}
		w.fill()
	}
}

// alive says that the tasks in hand are worked on.
func (w *pool) alive(work context.Context, now time.Time, second bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), lookTimeout)
	defer cancel()
	reachable := w.conn.Connected()
	for _, l := range w.leases {
		if look := l.keep(now, w.conn.NATS().Publish); look && reachable {
			reachable = l.regain(ctx, w) == nil // else the signs of life of the others would come late
		}
		if second && reachable {
			l.writeProgress(ctx, w)
		}
	}
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
