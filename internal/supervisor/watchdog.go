package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// period is how often the process has to send WATCHDOG=1; 0: it need not.
func (o *owner) period() time.Duration {
	if own := o.proc.Said.Watchdog; own != nil {
		return *own
	}
	return o.live.Watchdog
}

// guard expects pings from now on, or goes on to, by the present period.
func (o *owner) guard() {
	period := o.period()
	if period <= 0 {
		o.dog.Stop()
		o.guarded = 0
		return
	}
	if o.guarded == 0 {
		o.guarded = keeper.Monotonic()
		if o.found && o.proc.Said.Pinged > 0 {
			o.guarded = o.proc.Said.Pinged // it had to while nobody watched
		}
	}
	o.dog.Reset(max(0, o.pinged()+period-keeper.Monotonic()))
}

func (o *owner) pinged() time.Duration { return max(o.guarded, o.proc.Said.Pinged) }

// barked looks whether the process has pinged in time. The keeper is asked before it is condemned: its events may be
// late on a busy machine, its record is not.
func (o *owner) barked(ctx context.Context) {
	period := o.period()
	if o.guarded == 0 || period <= 0 {
		return
	}
	if now := keeper.Monotonic(); now < o.pinged()+period {
		o.guard()
		return
	}
	processes, _, err := o.keeper.List(ctx)
	if err != nil {
		return // the supervisor is about to end
	}
	for _, p := range processes {
		if p.Run == o.proc.Run && p.Exit == nil {
			o.proc.Said.Pinged = max(o.proc.Said.Pinged, p.Said.Pinged)
		}
	}
	if keeper.Monotonic() < o.pinged()+period {
		o.guard()
		return
	}
	o.abort(ctx, fmt.Sprintf("no WATCHDOG=1 within %s", brief(period)))
}
