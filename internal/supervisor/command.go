package supervisor

import (
	"cmp"
	"context"
	"reflect"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// verb is what a command asks of an owner.
type verb int

const (
	verbApply   verb = iota // be as spec says
	verbStart               // run, and forget past failures
	verbStop                // stop and stay so
	verbRestart             // stop if it runs, then run
	verbRemove              // stop and be forgotten; the owner ends
)

// command is a wish for one instance. The owner closes taken when it has acted on it and the board shows the effect.
type command struct {
	verb    verb
	spec    plan.Spec // of verbApply; verbStart and verbRestart of a blocked instance use it too
	blocked string    // of verbApply: why spec cannot be started; empty when it can
	keep    bool      // of verbStop: a person wants it, so the next supervisor is to know
	taken   chan struct{}
	falls   uint64 // set by the owner: how often the instance had fallen before
	botched uint64 // likewise: how many replacements had been given up
	calm    bool   // of verbApply: nobody asked, so what was given up is not tried again
	waits   string // set by the owner of a restarted instance that waited, and still does: for what
}

// send gives c to o and waits until it is taken.
func (s *Supervisor) send(ctx context.Context, o *owner, c *command) error {
	c.taken = make(chan struct{})
	select {
	case o.commands <- c:
	case <-o.done:
		if o.removed {
			return gone(o.name)
		}
		return ErrNotRunning
	case <-s.done:
		return ErrNotRunning
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-c.taken:
		return nil
	case <-s.done:
		return ErrNotRunning
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (o *owner) obey(ctx context.Context, c *command) {
	if o.goal == goalRemove {
		return // nothing brings it back; its successor has another owner
	}
	switch c.verb {
	case verbApply:
		o.apply(ctx, c)
	case verbStart:
		o.unblock(c.spec)
		o.start(ctx)
	case verbRestart:
		o.unblock(c.spec)
		if o.alive {
			o.goal = goalRun
			o.restart(ctx)
			return
		}
		waited := o.shown.State == status.Pending && o.goal == goalRun
		o.start(ctx)
		if waited && o.shown.State == status.Pending {
			c.waits = o.shown.Reason
		}
	case verbStop:
		o.goal = goalStop
		if c.keep {
			if err := o.marks.put(o.name, cmp.Or(o.proc.Run, unborn)); err != nil {
				o.log.WarnContext(ctx, "the next supervisor will start what was stopped", "err", err)
			}
		} else {
			o.born(ctx)
		}
		o.rest(ctx)
	case verbRemove:
		o.goal = goalRemove
		o.born(ctx)
		o.rest(ctx)
	}
}

// apply makes spec what is wanted. A blocked spec changes nothing of an instance that has run.
func (o *owner) apply(ctx context.Context, c *command) {
	spec, blocked := c.spec, c.blocked
	if blocked != "" {
		if o.blocked != "" && !o.alive {
			o.want, o.blocked = spec, blocked
			o.show(ctx, status.Failed, blocked)
		}
		return
	}
	fresh := spec.Hash() != o.want.Hash() || o.blocked != ""
	o.want, o.blocked = spec, ""
	if o.beside != nil && o.beside.hash != o.want.Hash() {
		o.alone(ctx)
	}
	o.keepTime(ctx)
	state := o.shown.State
	switch {
	case !o.alive && o.want.Schedule != nil && o.goal == goalRun && (state == status.Stopped || state == status.Failed && fresh):
		o.timer.Stop()
		o.show(ctx, status.Scheduled, "")
	case !o.alive && o.want.Schedule != nil, o.alive && o.changed() && o.want.Schedule != nil:
		o.show(ctx, state, o.shown.Reason)
	case state == status.Scheduled: // its schedule was taken away
		o.start(ctx)
	case !o.alive && fresh && o.goal == goalRun:
		o.start(ctx)
	case !o.alive:
		o.show(ctx, state, o.shown.Reason)
	case !o.changed():
		o.gaveUp, o.badHash = "", ""
		o.update(ctx)
	case o.succeeded():
		o.updateSuccessor(ctx)
	case c.calm && o.badHash == o.want.Hash():
		o.show(ctx, state, o.shown.Reason)
	case o.goal != goalRun:
		o.show(ctx, state, o.shown.Reason)
	case state == status.Stopping:
		o.again = o.again || o.self // it stops as it used to be
		o.show(ctx, state, o.shown.Reason)
	case state == status.Ready:
		o.rolling, o.gaveUp, o.badHash = true, "", ""
		o.board.roll(o.name)
		o.able(ctx)
	default:
		o.replace(ctx) // it does no work that could be lost
	}
	if !o.rolling {
		o.board.rolled(o.name)
	}
}

// update takes over the hot part of want while the process runs on.
func (o *owner) update(ctx context.Context) {
	health, liveness := o.live.Health, o.live.Liveness
	if o.live.Log != o.want.Log {
		o.relog(ctx, o.proc.Name)
	}
	o.live, o.parts, o.rolling = o.want, o.wantParts(), false
	o.limit(ctx)
	state := o.shown.State
	same := reflect.DeepEqual(health, o.live.Health) && reflect.DeepEqual(liveness, o.live.Liveness)
	switch {
	case state == status.Ready && !same:
		o.watch(ctx) // ready until the new probe says otherwise
		fallthrough
	case state == status.Ready:
		o.able(ctx)
	case same || state == status.Stopping:
		o.show(ctx, state, o.shown.Reason)
	default:
		o.up(ctx)
	}
}

// restart replaces a process that runs.
func (o *owner) restart(ctx context.Context) {
	switch {
	case o.succeeded(): // as soon as can be
	case o.beside != nil:
		o.alone(ctx)
		o.rolling, o.gaveUp = true, "" // once what is beside it has gone
		o.board.roll(o.name)
		o.show(ctx, o.shown.State, o.shown.Reason)
	default:
		o.replace(ctx)
	}
}

// start makes it run as soon as it can.
func (o *owner) start(ctx context.Context) {
	o.goal = goalRun
	o.born(ctx)
	o.backoff.forgive()
	o.gaveUp, o.badHash = "", ""
	if o.alive {
		if o.shown.State == status.Stopping {
			o.again = true
		}
		return
	}
	o.timer.Stop()
	o.begin(ctx)
}

// born takes back that it was stopped before its first run.
func (o *owner) born(ctx context.Context) {
	if err := o.marks.drop(o.name); err != nil {
		o.log.WarnContext(ctx, "the next supervisor will take it for stopped", "err", err)
	}
}

// rest makes it stop and stay so. What has exited by itself keeps showing how.
func (o *owner) rest(ctx context.Context) {
	o.again, o.rolling = false, false
	o.gaveUp, o.badHash = "", ""
	o.stopLanes(ctx)
	o.board.rolled(o.name)
	o.alone(ctx)
	switch {
	case o.shown.State == status.Stopping:
		o.verdict = ""
	case o.alive:
		o.halt(ctx, "asked to stop")
	case o.shown.State != status.Exited && o.beside != nil:
		o.timer.Stop()
		o.parting = ""
		o.show(ctx, status.Stopping, "its predecessor finishes what it has in hand")
	case o.shown.State != status.Exited:
		o.cancelStart(ctx)
		o.timer.Stop()
		o.unstore(ctx)
		o.show(ctx, status.Stopped, "")
	}
}

// replace ends the process to start what is wanted in its place.
func (o *owner) replace(ctx context.Context) {
	if o.surges() {
		o.surge(ctx)
		return
	}
	o.gaveUp, o.badHash = "", ""
	o.again, o.verdict, o.rolling = true, "", false
	o.backoff.forgive()
	if o.shown.State != status.Stopping {
		o.halt(ctx, "restarts")
	}
	o.board.rolled(o.name)
}

func (o *owner) unblock(spec plan.Spec) {
	if o.blocked != "" {
		o.want, o.blocked = spec, ""
	}
}
