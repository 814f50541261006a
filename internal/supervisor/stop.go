package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// condemn ends a process that does not do its work, which counts as a crash.
func (o *owner) condemn(ctx context.Context, verdict string) {
	o.verdict = verdict
	o.halt(ctx, verdict)
}

// halt asks the process to end; if it does not, its tree is killed after the grace.
func (o *owner) halt(ctx context.Context, reason string) {
	o.probe.stop()
	o.probe = nil
	o.show(ctx, status.Stopping, reason)
	// A signal that cannot be sent finds a process that has just ended, whose exit is on its way, or one that only a
	// kill can end. The timer knows which.
	_ = o.keeper.Signal(ctx, o.name, o.live.Stop.Signal, true)
	o.timer.Reset(o.live.Stop.Grace)
}

// kill ends the whole tree of the process.
func (o *owner) kill(ctx context.Context) {
	reason := fmt.Sprintf("killed: it did not stop within %s", o.live.Stop.Grace)
	if err := o.keeper.Kill(ctx, o.name); err != nil {
		reason = "kill: " + err.Error()
	}
	if ctx.Err() != nil {
		return
	}
	o.show(ctx, status.Stopping, reason)
	o.timer.Reset(max(o.live.Stop.Grace, time.Second)) // then once more
}
