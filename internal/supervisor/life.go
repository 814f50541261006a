package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// Labels of a process, which the keeper gives back to the next supervisor.
const (
	labelHash     = "hash"     // Spec.Hash of what it was started as
	labelRestarts = "restarts" // how often it had been restarted
)

// unhealthyTimes is how many times Health.Failures an unready instance may miss before it counts as crashed: long
// enough for a hiccup to pass, short enough that a hung process does not stay.
const unhealthyTimes = 3

// begin starts the instance, or waits for what it needs.
func (o *owner) begin(ctx context.Context) {
	if reason := o.board.unmet(o.want.Needs); reason != "" {
		o.show(ctx, status.Pending, reason)
		return
	}
	o.gen++
	o.live, o.hash = o.want, o.want.Hash()
	o.rolling, o.fine, o.found = false, false, false
	_ = o.keeper.Forget(ctx, o.name) // there may be no record; one that is in the way makes the spawn fail
	p, err := o.keeper.Spawn(ctx, o.request())
	if ctx.Err() != nil {
		return // if it was started it runs on, and the next supervisor adopts it
	}
	if err != nil {
		o.refused(ctx, err)
		return
	}
	o.proc, o.alive = p, true
	o.board.rolled(o.name)
	o.up(ctx)
}

func (o *owner) request() keeper.Spawn {
	s := o.live
	listen := make([]string, len(s.Listen))
	for i, l := range s.Listen {
		listen[i] = s.Socket(l)
	}
	return keeper.Spawn{
		Name: s.Name, Argv: s.Argv, Env: s.Env, Dir: s.Dir, UID: s.UID, GID: s.GID, Groups: s.Groups,
		Listen: listen, Notify: s.Notify || s.Health != nil && s.Health.Notify,
		Log:    keeperLog(s.Log),
		Labels: map[string]string{labelHash: o.hash, labelRestarts: strconv.Itoa(o.shown.Restarts)},
	}
}

// refused handles a process that could not be started. With a fix that a person has to make, it is Failed and tried
// again at the slowest pace of its policy; otherwise it has crashed.
func (o *owner) refused(ctx context.Context, err error) {
	f, ok := fault.As(err)
	if !ok || f.Fix == "" {
		o.fall(ctx, "start: "+err.Error(), 0)
		return
	}
	o.falls++
	o.show(ctx, status.Failed, explain(f))
	if o.live.Restart.Policy != plan.Never {
		o.timer.Reset(strayed(o.live.Restart.Max, random()))
	}
}

// up watches a process that runs until it is ready.
func (o *owner) up(ctx context.Context) {
	h := o.live.Health
	o.watch(ctx)
	if h == nil || h.Notify && o.proc.Ready {
		o.able(ctx)
		return
	}
	o.show(ctx, status.Starting, "")
	o.timer.Reset(h.Grace)
}

// able shows that the process can work.
func (o *owner) able(ctx context.Context) {
	o.timer.Stop()
	reason := ""
	if o.rolling {
		reason = "changed, waits for its turn to restart"
	}
	o.show(ctx, status.Ready, reason)
}

// watch starts to probe the process by what is wanted now.
func (o *owner) watch(ctx context.Context) {
	o.misses, o.lastErr = 0, nil
	o.probe.stop()
	o.probe = startProbe(ctx, resolved(o.live.Health, o.live, o.sockets.addresses()))
}

// hear takes in the keeper's word on the process.
func (o *owner) hear(ctx context.Context, p keeper.Process) {
	if !o.alive || p.Run != o.proc.Run {
		return // an earlier incarnation
	}
	o.proc = p
	if p.Exit != nil {
		o.ended(ctx)
		return
	}
	if h := o.live.Health; h != nil && h.Notify && p.Ready && o.shown.State == status.Starting {
		o.able(ctx)
	}
}

// probed takes in the result of a probe.
func (o *owner) probed(ctx context.Context, err error) {
	h, state := o.live.Health, o.shown.State
	if err == nil {
		o.misses = 0
		if state == status.Starting || state == status.Unready {
			o.able(ctx)
		}
		return
	}
	o.misses++
	if errors.Is(err, errNotNow) {
		o.misses = min(o.misses, h.Failures) // unready, and for as long as it says so
	}
	o.lastErr = err
	switch {
	case state == status.Starting: // the timer decides
	case o.misses >= h.Failures*(1+unhealthyTimes):
		o.condemn(ctx, fmt.Sprintf("unhealthy %d times in a row: %v", o.misses, err))
	case o.misses == h.Failures && state != status.Unready:
		o.show(ctx, status.Unready, err.Error())
	}
}

// expired goes on from a state that has lasted as long as it may.
func (o *owner) expired(ctx context.Context) {
	switch o.shown.State {
	case status.Starting:
		reason := fmt.Sprintf("not ready within %s", o.live.Health.Grace)
		if o.lastErr != nil {
			reason += ": " + o.lastErr.Error()
		}
		o.condemn(ctx, reason)
	case status.Backoff, status.Failed:
		o.shown.Restarts++
		o.begin(ctx)
	case status.Stopping:
		o.kill(ctx)
	}
}

// reasonOf is err in one line for an instance's reason.
func reasonOf(err error) string {
	var lines []string
	for _, one := range fault.Flatten(err) {
		if f, ok := fault.As(one); ok {
			lines = append(lines, explain(f))
		} else {
			lines = append(lines, one.Error())
		}
	}
	return strings.Join(lines, "; ")
}

// explain says in one line what is wrong and how to fix it.
func explain(f *fault.Error) string {
	if f.Fix == "" {
		return f.Error()
	}
	return f.Error() + "; " + f.Fix
}
