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
// call to call, and the timer is not set anew for each: that would cost an event more than many handlers do. It asks
// from time to time instead whether the call in hand is still the same; the next call answers by beginning, and one that
// has not answered for too long has overrun. So a call that nobody asks about reads one word. For one goroutine.
type deadline struct {
	after   time.Duration
	overrun error // the cause

	ctx    context.Context //nolint:containedctx // see above
	inHand bool            // between begin and over
	state  atomic.Uint32   // of the call in hand: one of the words below

	mu    sync.Mutex // guards what the timer uses
	end   context.CancelCauseFunc
	timer *time.Timer
	set   bool      // the timer is
	since time.Time // when it asked
}

const (
	noCall  uint32 = iota // none in hand
	running               // and nobody has asked
	asked                 // running since the timer asked or longer
	overran
)

// begin returns the context of the next call, which ends with work too. The call before, if it is not over, is.
func (d *deadline) begin(work context.Context) context.Context {
	if d.inHand && d.state.Load() == running {
		return d.ctx
	}
	return d.beginAnew(work)
}

func (d *deadline) beginAnew(work context.Context) context.Context {
	if d.inHand && d.state.CompareAndSwap(asked, running) {
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
	d.state.Store(running)
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
	if d.state.Swap(noCall) != overran {
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
	if !d.set {
		return // stopped meanwhile
	}
	switch d.state.Load() {
	case noCall:
		d.set = false // an idle worker wakes nobody
		return
	case running:
		d.since = time.Now()
		d.state.CompareAndSwap(running, asked) // else it was over meanwhile
	case asked:
		if time.Since(d.since) >= d.after && d.state.CompareAndSwap(asked, overran) {
			d.set = false
			d.end(d.overrun)
			return
		}
	}
	d.timer.Reset(d.after / looks)
}

// stop releases the context.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inHand, d.set = false, false
	d.state.Store(noCall)
	if d.ctx != nil {
		d.timer.Stop()
		d.end(nil)
		d.ctx = nil
	}
}
