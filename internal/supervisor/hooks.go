package supervisor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// envHook tells a hook which moment it is run at.
const envHook = "HOZO_HOOK"

// hooks are the programs that are run at moments of an instance's life, one at a time. Each is named by the run of the
// instance that it belongs to, and its record stays with the keeper as long as that matters: so a supervisor that starts
// in the middle of one awaits it, and does not run again what has been run.
type hooks struct {
	records map[string]keeper.Process // by name, running or ended
	running string                    // the moment of the one that runs
	next    string                    // the moment that waits for it to end
	expired bool                      // it was killed because its time was over
	dropped bool                      // it was killed because nobody wants the start any more
	timer   *time.Timer
	note    string // how the last one failed
	noteOf  string // the run that it failed for
}

func newHooks(found []keeper.Process) *hooks {
	h := &hooks{records: make(map[string]keeper.Process), timer: time.NewTimer(0)}
	h.timer.Stop()
	for _, p := range found {
		h.records[p.Name] = p
	}
	return h
}

func hookOf(s plan.Spec, moment string) (plan.Hook, bool) {
	for _, h := range s.Hooks {
		if h.Moment == moment {
			return h, true
		}
	}
	return plan.Hook{}, false
}

// passed says whether the hook of a moment has been run for the present run of the instance, or there is none. Otherwise
// it sees to that, and the owner goes on from resume when it has ended.
func (o *owner) passed(ctx context.Context, moment string) bool {
	name := sideName(o.name, moment)
	record, known := o.hooks.records[name]
	ours := known && record.Labels[labelSide] == o.proc.Run
	spec, declared := hookOf(o.want, moment)
	switch {
	case ours && record.Exit != nil:
		return true
	case ours && o.hooks.running == moment:
		return false
	case ours:
		o.awaitHook(moment, record) // of an earlier supervisor
		return false
	case !declared && o.hooks.running == "":
		return true
	case o.hooks.running != "" || known && record.Exit == nil:
		// One that is not about the present any more gives way; the end of another is awaited.
		if running := o.hooks.running; running == "" || running == plan.AfterReady || running == plan.BeforeStart {
			o.killHook(ctx, name)
		}
		o.hooks.next = moment
		if o.hooks.running == "" {
			o.awaitHook(moment, record)
		}
		return false
	}
	o.runHook(ctx, spec, name)
	return o.hooks.running == ""
}

func (o *owner) killHook(ctx context.Context, name string) {
	if o.hooks.running != "" {
		name = sideName(o.name, o.hooks.running)
	}
	_ = o.keeper.Kill(ctx, name) // it may have ended, and its exit is on its way
}

func (o *owner) runHook(ctx context.Context, h plan.Hook, name string) {
	s := o.want
	_ = o.keeper.Forget(ctx, name) // as for an instance
	p, err := o.spawn(ctx, keeper.Spawn{
		Name: name, Argv: h.Argv, Env: append(append([]string(nil), s.Env...), envHook+"="+h.Moment),
		Dir: s.Dir, UID: s.UID, GID: s.GID, Groups: s.Groups,
		Log:    sideLog(s.Log, h.Moment),
		Labels: map[string]string{labelSide: o.proc.Run},
	})
	if ctx.Err() != nil {
		o.hooks.running = h.Moment // the next supervisor finds it, if it was started
		return
	}
	if err != nil {
		now := time.Now()
		p = keeper.Process{Name: name, Labels: map[string]string{labelSide: o.proc.Run}, Exit: &keeper.Exit{Code: -1, Time: now}}
		o.hooks.records[name] = p
		o.hookFailed(ctx, h.Moment, "cannot be started: "+reasonOf(err))
		return
	}
	o.awaitHook(h.Moment, p)
}

// awaitHook bounds a hook that runs.
func (o *owner) awaitHook(moment string, p keeper.Process) {
	h, _ := hookOf(o.want.WithDefaults(), moment)
	if h.Timeout == 0 {
		h.Timeout = 30 * time.Second // it is not in the manifest any more
	}
	o.hooks.records[p.Name] = p
	o.hooks.running, o.hooks.expired = moment, false
	o.hooks.timer.Reset(min(h.Timeout, max(0, h.Timeout-time.Since(p.Started))))
}

// hookExpired ends the tree of a hook whose time is over.
func (o *owner) hookExpired(ctx context.Context) {
	o.hooks.expired = true
	_ = o.keeper.Kill(ctx, sideName(o.name, o.hooks.running)) // as in killHook
	o.hooks.timer.Reset(time.Second)                          // then once more
}

// hookEnded goes on from a hook that has ended.
func (o *owner) hookEnded(ctx context.Context, p keeper.Process) {
	_, moment, _ := strings.Cut(p.Name, "@")
	if o.hooks.running != moment {
		return
	}
	o.hooks.timer.Stop()
	o.hooks.running = ""
	if o.hooks.dropped {
		o.hooks.dropped = false
		_ = o.keeper.Forget(ctx, p.Name) // as for an instance
		delete(o.hooks.records, p.Name)
		o.resume(ctx, moment)
		return
	}
	ours := p.Labels[labelSide] == o.proc.Run
	if failed := hookResult(p, o.hooks.expired); failed != "" && ours {
		o.hookFailed(ctx, moment, failed)
	}
	if next := o.hooks.next; next != "" {
		moment, o.hooks.next = next, ""
	}
	o.resume(ctx, moment)
}

func hookResult(p keeper.Process, expired bool) string {
	switch {
	case expired:
		return "killed: its time was over"
	case p.Exit.Code != 0 || p.Exit.Signal != 0:
		return describe(*p.Exit)
	}
	return ""
}

func (o *owner) hookFailed(ctx context.Context, moment, reason string) {
	o.hooks.note, o.hooks.noteOf = moment+": "+reason, o.proc.Run
	o.log.WarnContext(ctx, "hook failed", "hook", moment, "reason", reason)
}

// failedHook returns how a hook of the present run failed, or "".
func (o *owner) failedHook() string {
	if o.hooks.noteOf != o.proc.Run {
		return ""
	}
	return o.hooks.note
}

// resume goes on with what waited for the hook of a moment.
func (o *owner) resume(ctx context.Context, moment string) {
	switch {
	case moment == plan.BeforeStart && o.shown.State == status.Starting && !o.alive && o.goal == goalRun:
		o.begin(ctx)
	case moment == plan.BeforeStop && o.alive && o.proc.Exit == nil && o.shown.State == status.Stopping:
		o.halt(ctx, o.shown.Reason)
	case moment == plan.AfterStop && o.lingers:
		o.ended(ctx)
	case moment == plan.AfterReady && o.shown.State == status.Ready:
		o.able(ctx)
	}
}

// admitted says whether the hook before the start lets the instance start. When it has failed, that is a crash; while it
// runs, the instance is shown to be starting.
func (o *owner) admitted(ctx context.Context) bool {
	if !o.passed(ctx, plan.BeforeStart) {
		o.show(ctx, status.Starting, plan.BeforeStart+" runs")
		return false
	}
	name := sideName(o.name, plan.BeforeStart)
	p, ran := o.hooks.records[name]
	if !ran {
		return true
	}
	delete(o.hooks.records, name) // each start has one of its own
	failed := hookResult(p, o.hooks.expired)
	o.hooks.expired = false
	if failed == "" {
		return true
	}
	_ = o.keeper.Forget(ctx, name) // or a supervisor that starts now would count the crash again
	o.live = o.want
	o.ticked(ctx)
	reason := fmt.Sprintf("%s: %s", plan.BeforeStart, failed)
	if note := o.failedHook(); note != "" && p.Run == "" {
		reason = note // it could not be started
	}
	o.fall(ctx, reason, keeper.Monotonic(), 0)
	return false
}

// drop forgets the hooks of earlier runs.
func (o *owner) dropHooks(ctx context.Context) {
	for name, p := range o.hooks.records {
		if p.Exit != nil && p.Labels[labelSide] != o.proc.Run {
			_ = o.keeper.Forget(ctx, name) // there may be no record of one that could not be started
			delete(o.hooks.records, name)
		}
	}
}

// cancelStart ends the hook before a start that nobody wants any more.
func (o *owner) cancelStart(ctx context.Context) {
	if o.hooks.running == plan.BeforeStart {
		o.hooks.dropped = true
		o.killHook(ctx, "")
	}
}

// endedAs is the state in which the process ended.
func (o *owner) endedAs() status.State {
	if o.lingers {
		return o.leftAs
	}
	return o.shown.State
}

// left shows that an instance that has ended waits for the hook after its stop, and says so as long as it does.
func (o *owner) left(ctx context.Context) bool {
	if o.passed(ctx, plan.AfterStop) {
		o.lingers = false
		return false
	}
	if !o.lingers {
		o.lingers, o.alive = true, true
		o.timer.Stop()
		o.unwatch()
		o.show(ctx, status.Stopping, plan.AfterStop+" runs")
	}
	return true
}
