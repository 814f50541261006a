package bus

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// looks is how often a deadline looks at a call in its time: a call that overruns is ended after its time and at most
// an eighth more.
const looks = 8

// deadline gives one call after the other a context that ends when the call overruns. Context and timer are kept from
// call to call, and the timer is not set anew for each: that would cost an event more than many handlers do. It looks
// in from time to time instead, and a call that it finds in hand for too long has overrun. For one goroutine.
type deadline struct {
	after   time.Duration
	overrun error // the cause

	ctx    context.Context //nolint:containedctx // see above
	calls  uint64          // begun so far
	inHand bool            // between begin and over
	call   atomic.Uint64   // number of the call in hand, or one of the words below

	mu    sync.Mutex // guards what the timer uses
	end   context.CancelCauseFunc
	timer *time.Timer
	set   bool // the timer is
	seen  uint64
	since time.Time // when call seen was first seen
}

const (
	noCall  = 0
	overran = ^uint64(0)
)

// begin returns the context of the next call, which ends with work too. The call before, if it is not over, is.
func (d *deadline) begin(work context.Context) context.Context {
	d.calls++
	if d.inHand && d.call.CompareAndSwap(d.calls-1, d.calls) {
		return d.ctx
	}
	if d.inHand { // it overran
		d.stop()
	}
	d.inHand = true
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil {
		d.ctx, d.end = context.WithCancelCause(work)
	}
	d.call.Store(d.calls)
	if !d.set {
		d.set = true
		if d.timer == nil {
			d.timer = time.AfterFunc(d.after/looks, d.look)
		} else {
			d.timer.Reset(d.after / looks)
		}
	}
	return d.ctx
}

// over ends the call, if one is in hand; it reports whether the call overran.
func (d *deadline) over() bool {
	if !d.inHand {
		return false
	}
	if d.call.CompareAndSwap(d.calls, noCall) {
		d.inHand = false
		return false
	}
	d.stop()
	return true
}

// look is the timer's.
func (d *deadline) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	call := d.call.Load()
	if call != d.seen {
		d.seen, d.since = call, time.Now()
	}
	switch {
	case !d.set:
		return // stopped meanwhile
	case call == noCall:
		d.set = false // an idle worker wakes nobody
		return
	case time.Since(d.since) >= d.after && d.call.CompareAndSwap(call, overran):
		d.set = false
		d.end(d.overrun)
		return
	}
	d.timer.Reset(d.after / looks)
}

// stop releases the context.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inHand, d.set = false, false
	d.call.Store(noCall)
	if d.ctx != nil {
		d.timer.Stop()
		d.end(nil)
		d.ctx = nil
	}
}
