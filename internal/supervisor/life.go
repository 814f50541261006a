package supervisor

import (
	"cmp"
	"context"
	"encoding/json"
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
	labelBackoff  = "backoff"  // what its falls before have earned it
	labelNeeded   = "needed"   // runs of what it starts again after
)

// saidBroken is the verdict on a process that has said WATCHDOG=trigger.
const saidBroken = "it reports itself broken (WATCHDOG=trigger)"

// unhealthyTimes is how many times Health.Failures an unready instance may miss before it counts as crashed: long
// enough for a hiccup to pass, short enough that a hung process does not stay.
const unhealthyTimes = 3

// begin starts the instance, or waits for what it needs.
func (o *owner) begin(ctx context.Context) {
	if reason := o.board.unmet(o.want.Needs); reason != "" {
		o.show(ctx, status.Pending, reason)
		return
	}
	if !o.admitted(ctx) {
		return
	}
	o.gen++
	o.givenUp = false
	// What was given up is not started in place of what it was to replace.
	if o.badHash == "" || o.badHash != o.want.Hash() || o.live.Hash() != o.hash {
		o.live, o.hash, o.parts, o.gaveUp, o.badHash = o.want, o.want.Hash(), o.wantParts(), "", ""
	}
	o.rolling, o.fine, o.found, o.self = false, false, false, false
	o.needed = o.board.runs(o.want.Needs)
	o.backoff.started(o.live.Restart, keeper.Monotonic())
	s := o.request(o.live, o.hash)
	s.Name = cmp.Or(o.proc.Name, o.name)
	_ = o.keeper.Forget(ctx, s.Name) // there may be no record; one that is in the way makes the spawn fail
	p, err := o.spawn(ctx, s)
	if ctx.Err() != nil {
		return // if it was started it runs on, and the next supervisor adopts it
	}
	if err != nil {
		o.refused(ctx, err)
		return
	}
	o.proc, o.alive = p, true
	o.dropHooks(ctx)
	o.ticked(ctx)
	o.board.rolled(o.name)
	o.up(ctx)
}

// spawn starts a process. One that has ended before the answer was written is still given as running: its end comes as an
// event, as every end does, and is dealt with once.
func (o *owner) spawn(ctx context.Context, s keeper.Spawn) (keeper.Process, error) {
	p, err := o.keeper.Spawn(ctx, s)
	p.Exit = nil
	return p, err
}

// request asks for a process of s; the caller chooses its name.
func (o *owner) request(s plan.Spec, hash string) keeper.Spawn {
	listen := make([]string, len(s.Listen))
	for i, l := range s.Listen {
		listen[i] = s.Socket(l)
	}
	needed := ""
	if len(o.needed) > 0 {
		text, err := json.Marshal(o.needed)
		if err != nil {
			panic("supervisor: internal error: names that JSON cannot hold: " + err.Error())
		}
		needed = string(text)
	}
	line := ""
	if s.Health != nil {
		line = s.Health.Log
	}
	return keeper.Spawn{
		Argv: s.Argv, Env: withTick(s.Env, o.due), Dir: s.Dir, UID: s.UID, GID: s.GID, Groups: s.Groups,
		Listen: listen, Notify: s.Notify || s.Watchdog > 0 || s.Health != nil && s.Health.Notify, Watchdog: s.Watchdog, ReadyLine: line,
		Log: keeperLog(s.Log),
		Labels: map[string]string{
			labelInstance: o.name, labelGen: strconv.FormatUint(o.gen, 10), labelHash: hash, labelRestarts: strconv.Itoa(o.shown.Restarts), labelBackoff: o.backoff.label(), labelNeeded: needed,
			labelParts: partsLabel(s), labelTick: tickLabel(o.due),
		},
		Limits: keeper.Limits(s.Limits),
		Store:  o.name, // whatever the process is called
	}
}

// refused handles a process that could not be started. With a fix that a person has to make, it is Failed and tried
// again at the slowest pace of its policy; otherwise it has crashed.
func (o *owner) refused(ctx context.Context, err error) {
	f, ok := fault.As(err)
	if !ok || f.Fix == "" || f.Code == "keeper/busy-binary" {
		o.fall(ctx, "start: "+err.Error(), keeper.Monotonic(), 0)
		return
	}
	o.falls++
	o.show(ctx, status.Failed, explain(f))
	r := o.live.Restart
	if r.Policy == plan.Never {
		return
	}
	if a := o.backoff.fell(r, keeper.Monotonic(), 0, random()); !a.never {
		o.timer.Reset(max(a.after, strayed(r.Max, random())))
	}
}

// up watches a process that runs until it is ready.
func (o *owner) up(ctx context.Context) {
	h := o.live.Health
	o.watch(ctx)
	if h == nil || o.hasSaidReady() {
		o.able(ctx)
	} else {
		o.show(ctx, status.Starting, "")
		o.await(h.Grace)
	}
	// What it has said before the keeper's answer, or while nobody watched.
	switch {
	case o.proc.Said.Trigger:
		o.abort(ctx, saidBroken)
	case o.proc.Said.Stopping:
		o.leaves(ctx)
	}
}

// hasSaidReady says whether the process has given the sign that its health waits for.
func (o *owner) hasSaidReady() bool { return saidReady(o.live.Health, o.proc) }

// saidReady says whether a process has given the sign that h waits for.
func saidReady(h *plan.Health, p keeper.Process) bool {
	return h != nil && (h.Notify && p.Ready || h.Log != "" && p.Line)
}

// able shows that the process can work, and expects its pings from now on.
func (o *owner) able(ctx context.Context) {
	o.timer.Stop()
	if o.shown.State != status.Ready && o.shown.State != status.Unready {
		o.passed(ctx, plan.AfterReady) // nothing waits for it
	}
	o.guard()
	reason := o.failedHook()
	switch {
	case o.rolling:
		reason = "changed, waits for its turn to restart"
	case o.proc.Said.Reloading:
		reason = "reloading"
	}
	o.show(ctx, status.Ready, reason)
}

// watch starts to probe the process by what is wanted now.
func (o *owner) watch(ctx context.Context) {
	o.probe.stop()
	o.pulse.stop()
	o.hits, o.misses, o.lastErr, o.ails, o.lived = 0, 0, nil, 0, false
	bound := o.sockets.addresses()
	o.probe = startProbe(ctx, resolved(o.live.Health, o.live, bound), o.live, 0)
	o.pulse = startProbe(ctx, resolved(o.live.Liveness, o.live, bound), o.live, 0)
}

// unwatch ends every probe of the process, and waits for them.
func (o *owner) unwatch() {
	o.probe.stop()
	o.pulse.stop()
	o.probe, o.pulse = nil, nil
	o.dog.Stop()
	o.guarded = 0
}

// hear takes in the keeper's word on the process.
func (o *owner) hear(ctx context.Context, p keeper.Process) {
	if o.beside != nil && p.Run == o.beside.proc.Run {
		o.besideHeard(ctx, p)
		return
	}
	if !o.alive || p.Run != o.proc.Run || o.proc.Exit != nil {
		return // an earlier incarnation
	}
	before := o.proc
	o.proc = o.limitedAs(p)
	if p.Exit != nil {
		o.ended(ctx)
		return
	}
	o.prolong()
	state := o.shown.State
	switch {
	case state == status.Stopping:
		o.show(ctx, state, o.shown.Reason)
	case p.Said.Stopping:
		o.leaves(ctx)
	case p.Said.Trigger && !before.Said.Trigger:
		o.abort(ctx, saidBroken)
	case state == status.Starting && o.hasSaidReady(), state == status.Ready:
		o.able(ctx)
	default:
		o.show(ctx, state, o.shown.Reason)
	}
}

// probed takes in the result of a probe of its health.
func (o *owner) probed(ctx context.Context, err error) {
	h, state := o.live.Health, o.shown.State
	if err == nil {
		o.misses = 0
		o.hits++
		if o.hits >= h.Successes && (state == status.Starting || state == status.Unready) {
			o.able(ctx)
		}
		return
	}
	o.hits = 0
	o.misses++
	if errors.Is(err, errNotNow) || errors.Is(err, errNotServing) {
		o.misses = min(o.misses, h.Failures) // unready, and for as long as it says so
	}
	o.lastErr = err
	switch {
	case state == status.Starting: // the timer decides
	case o.live.Liveness == nil && o.misses >= h.Failures*(1+unhealthyTimes):
		o.condemn(ctx, fmt.Sprintf("unhealthy %d times in a row: %v", o.misses, err))
	case o.misses == h.Failures && state != status.Unready:
		o.show(ctx, status.Unready, err.Error())
	}
}

// felt takes in the result of a probe of its liveness.
func (o *owner) felt(ctx context.Context, err error) {
	h := o.live.Liveness
	if err == nil {
		o.ails, o.lived = 0, true
		return
	}
	if !o.lived && keeper.Monotonic() < o.proc.Since+h.Grace {
		return // it may still be on its way up
	}
	if o.ails++; o.ails >= h.Failures {
		o.condemn(ctx, fmt.Sprintf("not alive %d times in a row: %v", o.ails, err))
	}
}

// expired goes on from a state that has lasted as long as it may.
func (o *owner) expired(ctx context.Context) {
	switch o.shown.State {
	case status.Starting:
		reason := fmt.Sprintf("not ready within %s", brief(o.live.Health.Grace))
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
