package bus

import (
	"context"
	"time"
)

// deadline gives one call after the other a context that ends when the call overruns. The context is kept from call to
// call: a context and a timer of its own would cost each event more than many handlers do. Not safe for concurrent use.
type deadline struct {
	after   time.Duration
	overrun error // the cause

	timer *time.Timer
	ctx   context.Context //nolint:containedctx // see above
	end   context.CancelCauseFunc
}

// begin returns the context of the next call, which ends with work too.
func (d *deadline) begin(work context.Context) context.Context {
	if d.ctx == nil || d.ctx.Err() != nil {
		d.stop()
		ctx, end := context.WithCancelCause(work)
		d.ctx, d.end = ctx, end
		d.timer = time.AfterFunc(d.after, func() { end(d.overrun) })
		return ctx
	}
	d.timer.Reset(d.after)
	return d.ctx
}

// over ends the call; it reports whether the call overran.
func (d *deadline) over() bool {
	if d.timer.Stop() {
		return false
	}
	d.stop() // this context has ended or is about to
	return true
}

// stop releases the context.
func (d *deadline) stop() {
	if d.ctx != nil {
		d.timer.Stop()
		d.end(nil)
		d.ctx = nil
	}
}
