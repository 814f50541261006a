package supervisor

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// abortGrace is how long a process that was sent SIGABRT has to leave its core; one that is stopped or in a loop of
// its own does not take the signal. Longer would leave a hung service in its clients' way.
const abortGrace = 2 * time.Second

// condemn ends a process that does not do its work, which counts as a crash.
func (o *owner) condemn(ctx context.Context, verdict string) {
	o.verdict = verdict
	o.halt(ctx, verdict)
}

// halt asks the process to end; if it does not, its tree is killed after the grace.
func (o *owner) halt(ctx context.Context, reason string) {
	o.unwatch()
	o.self = false
	o.show(ctx, status.Stopping, reason)
	o.timer.Stop()
	o.deadline = 0
	if o.proc.Exit != nil || !o.passed(ctx, plan.BeforeStop) {
		return
	}
	// A signal that cannot be sent finds a process that has just ended, whose exit is on its way, or one that only a
	// kill can end. The timer knows which.
	_ = o.keeper.Signal(ctx, o.proc.Name, o.live.Stop.Signal, true)
	o.granted = o.live.Stop.Grace
	o.await(o.granted)
}

// abort ends a process that hangs, with a core if it can, which counts as a crash.
func (o *owner) abort(ctx context.Context, verdict string) {
	o.unwatch()
	o.verdict, o.self = verdict, false
	o.show(ctx, status.Stopping, verdict)
	_ = o.keeper.Signal(ctx, o.proc.Name, syscall.SIGABRT, false) // as in halt
	o.granted = min(abortGrace, o.live.Stop.Grace)
	o.deadline = 0 // whoever hangs is not asked whether it needs longer
	o.timer.Reset(o.granted)
}

// leaves shows that the process stops by its own word; it has the grace of any stop.
func (o *owner) leaves(ctx context.Context) {
	o.unwatch()
	o.self = true
	o.show(ctx, status.Stopping, "stops by itself")
	o.granted = o.live.Stop.Grace
	o.await(o.granted)
}

// kill ends the whole tree of the process.
func (o *owner) kill(ctx context.Context) {
	reason := fmt.Sprintf("killed: it did not stop within %s", brief(o.granted))
	if o.verdict != "" {
		reason = o.verdict + "; " + reason
	}
	if err := o.keeper.Kill(ctx, o.proc.Name); err != nil {
		reason = "kill: " + err.Error()
	}
	if ctx.Err() != nil {
		return
	}
	o.show(ctx, status.Stopping, reason)
	o.deadline = 0
	o.timer.Reset(max(o.live.Stop.Grace, time.Second)) // then once more
}

// await bounds the present state. The process may ask for more time with EXTEND_TIMEOUT_USEC.
func (o *owner) await(d time.Duration) {
	o.deadline = keeper.Monotonic() + d
	o.timer.Reset(d)
	o.prolong()
}

// prolong gives a process that starts or stops the time that it has asked for.
func (o *owner) prolong() {
	until := o.proc.Said.Extended
	if o.deadline == 0 || until <= o.deadline || o.shown.State != status.Starting && o.shown.State != status.Stopping {
		return
	}
	o.deadline = until
	o.timer.Reset(until - keeper.Monotonic())
}

// unstore drops the descriptors that the keeper keeps for the next run: they are for a restart, not for a stop.
func (o *owner) unstore(ctx context.Context) {
	if o.proc.Stored > 0 {
		_ = o.keeper.Unstore(ctx, o.proc.Name) // what cannot be dropped is bounded
	}
}
