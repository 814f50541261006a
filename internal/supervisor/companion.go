package supervisor

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// An instance has one process, and for a while two: when it is replaced without a gap, the new process starts beside the
// old one under the keeper's other name for the instance, and the old one is asked to end when the new one can work. The
// two names take turns, so there are never more than two processes, and a process keeps its name for life.

// labelInstance is the label of a process that names its instance, since its own name may not.
const labelInstance = "instance"

// labelGen is the label that numbers the processes of an instance: of two that live, the higher one is the newer.
const labelGen = "generation"

// role is what a process does beside the one that serves.
type role int

const (
	roleSuccessor   role = iota // it starts, to take over
	rolePredecessor             // it has been taken over from, and drains
	roleGivenUp                 // it was to take over and did not get there; it is ended
)

// companion is a process beside the one that serves.
type companion struct {
	role  role
	proc  keeper.Process
	spec  plan.Spec
	hash  string
	parts *parts
	probe *probe      // of a successor
	timer *time.Timer // of a successor: how long it may take; else the grace of its end
	last  error       // of the last failed probe
	hits  int         // successful probes in a row

	deadline time.Duration // when timer ends, by keeper.Monotonic, if the process may ask for more time; else 0
	limited  bool          // its limits were changed: the answer to that is the last word on them
}

// await bounds what the companion is at. It may ask for more time with EXTEND_TIMEOUT_USEC.
func (c *companion) await(d time.Duration) {
	c.deadline = keeper.Monotonic() + d
	c.timer.Reset(d)
	c.prolong()
}

// prolong gives the companion the time that it has asked for.
func (c *companion) prolong() {
	if until := c.proc.Said.Extended; c.deadline != 0 && until > c.deadline {
		c.deadline = until
		c.timer.Reset(until - keeper.Monotonic())
	}
}

// settleTime is how long a successor without a health check must live before it takes over: a program that cannot run
// at all has ended by then.
const settleTime = time.Second

// surges says whether the process is to be replaced by one that starts beside it.
func (o *owner) surges() bool {
	serving := o.shown.State == status.Ready || o.shown.State == status.Unready
	return o.want.Rolling.Surge > 0 && o.alive && serving && o.goal == goalRun && o.blocked == "" && o.beside == nil
}

// surge starts what is wanted beside the process that serves.
func (o *owner) surge(ctx context.Context) {
	o.rolling, o.gaveUp, o.badHash = false, "", ""
	c := &companion{spec: o.want, hash: o.want.Hash(), parts: o.wantParts(), timer: idleTimer()}
	o.gen++
	s := o.request(c.spec, c.hash)
	s.Name = o.spareName()
	_ = o.keeper.Forget(ctx, s.Name) // there may be no record; one that is in the way makes the spawn fail
	p, err := o.spawn(ctx, s)
	if ctx.Err() != nil {
		return // if it was started it runs on, and the next supervisor goes on with it
	}
	if err != nil {
		o.badHash = c.hash
		o.refuse(ctx, "start: "+reasonOf(err))
		return
	}
	c.proc = p
	o.accompany(ctx, c)
}

// accompany watches a successor until it can work.
func (o *owner) accompany(ctx context.Context, c *companion) {
	c.role = roleSuccessor
	o.beside = c
	h := c.spec.Health
	switch {
	case c.proc.Said.Trigger:
		o.giveUp(ctx, saidBroken)
		return
	case h == nil:
		c.timer.Reset(settleTime)
	case saidReady(h, c.proc):
		o.takeOver(ctx)
		o.board.rolled(o.name)
		return
	default:
		c.await(c.spec.Rolling.Timeout)
		c.probe = startProbe(ctx, resolved(h, c.spec, o.sockets.addresses()), c.spec, c.proc.PID)
	}
	o.serve(ctx)
}

// serve shows the process that serves as it is, and what happens beside it, before the mark of its turn goes: whoever
// looks sees the one or the other.
func (o *owner) serve(ctx context.Context) {
	reason := o.shown.Reason
	if o.shown.State == status.Ready {
		reason = "" // it does not wait for its turn any more
	}
	o.show(ctx, o.shown.State, reason)
	o.board.rolled(o.name)
}

// spareName is the name that the process that serves does not have.
func (o *owner) spareName() string {
	if o.proc.Name == plan.OtherName(o.name) {
		return o.name
	}
	return plan.OtherName(o.name)
}

// results and expired of a nil companion never yield.
func (c *companion) result() <-chan error {
	if c == nil {
		return nil
	}
	return c.probe.result()
}

func (c *companion) expired() <-chan time.Time {
	if c == nil {
		return nil
	}
	return c.timer.C
}

// stop ends what watches the companion; its process runs on.
func (c *companion) stop() {
	if c != nil {
		c.probe.stop()
		c.probe = nil
		c.timer.Stop()
	}
}

// updateSuccessor takes over the hot part of want for the process that is to take over.
func (o *owner) updateSuccessor(ctx context.Context) {
	c := o.beside
	before := c.spec
	c.spec, c.parts = o.want, o.wantParts()
	if before.Log != c.spec.Log {
		o.relog(ctx, c.proc.Name)
	}
	if p, done := o.limitProcess(ctx, c.proc); done {
		c.proc.Limits, c.proc.Unmet, c.limited = p.Limits, p.Unmet, true
	}
	if reflect.DeepEqual(before.Health, c.spec.Health) && before.Rolling.Timeout == c.spec.Rolling.Timeout {
		o.show(ctx, o.shown.State, o.shown.Reason)
		return
	}
	c.stop()
	c.hits, c.last, c.deadline = 0, nil, 0
	o.accompany(ctx, c) // its time begins anew
}

// successorProbed takes in the result of a probe of the successor.
func (o *owner) successorProbed(ctx context.Context, err error) {
	c := o.beside
	if err != nil {
		c.hits, c.last = 0, err
		return
	}
	if c.hits++; c.hits >= c.spec.Health.Successes {
		o.takeOver(ctx)
	}
}

// besideHeard takes in the keeper's word on the companion.
func (o *owner) besideHeard(ctx context.Context, p keeper.Process) {
	c := o.beside
	if c.limited {
		p.Limits, p.Unmet = c.proc.Limits, c.proc.Unmet
	}
	c.proc = p
	c.prolong()
	switch {
	case p.Exit != nil:
		o.besideEnded(ctx)
	case c.role == roleSuccessor && p.Said.Trigger:
		o.giveUp(ctx, saidBroken)
	case c.role == roleSuccessor && saidReady(c.spec.Health, p):
		o.takeOver(ctx)
	}
}

// takeOver makes the successor the process that serves, and asks the one before it to end.
func (o *owner) takeOver(ctx context.Context) {
	c := o.beside
	c.stop()
	o.beside = nil
	old := &companion{role: rolePredecessor, proc: o.proc, spec: o.live, hash: o.hash, parts: o.parts, timer: idleTimer()}
	o.become(ctx, c)
	o.dismiss(ctx, old)
	o.able(ctx)
}

// become makes the companion's process the instance's.
func (o *owner) become(ctx context.Context, c *companion) {
	o.unwatch()
	o.timer.Stop()
	o.deadline, o.self = 0, false
	o.needed = o.board.runs(c.spec.Needs)
	o.proc, o.live, o.hash, o.parts = c.proc, c.spec, c.hash, c.parts
	o.alive, o.fine, o.found, o.verdict, o.again = true, false, false, "", false
	if c.limited {
		o.limited = c.proc.Run
	}
	o.gaveUp, o.badHash = "", ""
	o.watch(ctx)
}

// dismiss asks a process beside the one that serves to end; its tree is killed after the grace.
func (o *owner) dismiss(ctx context.Context, c *companion) {
	c.stop()
	// The mark tells the next supervisor that it has been asked: a second signal would end it without its drain.
	if err := o.marks.put(drainMark(o.name), c.proc.Run); err != nil {
		o.log.WarnContext(ctx, "the next supervisor will ask the old process to end once more", "err", err)
	}
	_ = o.keeper.Signal(ctx, c.proc.Name, c.spec.Stop.Signal, true) // it may have ended, as its exit will tell
	c.await(c.spec.Stop.Grace)
	o.beside = c
}

// besideExpired goes on from a companion that has taken as long as it may.
func (o *owner) besideExpired(ctx context.Context) {
	c := o.beside
	if c.role != roleSuccessor {
		if err := o.keeper.Kill(ctx, c.proc.Name); err != nil && ctx.Err() == nil {
			o.log.WarnContext(ctx, "kill the old process", "err", err)
		}
		c.deadline = 0
		c.timer.Reset(max(c.spec.Stop.Grace, time.Second)) // then once more
		return
	}
	if c.spec.Health == nil {
		o.takeOver(ctx)
		return
	}
	reason := fmt.Sprintf("not ready within %s", brief(c.spec.Rolling.Timeout))
	if c.proc.Said.Extended > 0 {
		reason += ", nor within the time that it has asked for"
	}
	if c.last != nil {
		reason += ": " + c.last.Error()
	}
	o.giveUp(ctx, reason)
}

// giveUp ends a successor that did not get there; the process that serves goes on.
func (o *owner) giveUp(ctx context.Context, reason string) {
	c := o.beside
	o.badHash = c.hash
	c.role = roleGivenUp
	o.dismiss(ctx, c)
	o.refuse(ctx, reason)
}

// refuse shows that the change was given up.
func (o *owner) refuse(ctx context.Context, reason string) {
	o.gaveUp = reason
	o.botched++
	o.rolling = false
	o.serve(ctx)
}

// besideEnded goes on from a companion that is gone.
func (o *owner) besideEnded(ctx context.Context) {
	c := o.beside
	c.stop()
	o.beside = nil
	exit := *c.proc.Exit
	if len(exit.Survivors) > 0 {
		o.refuse(ctx, fmt.Sprintf("processes %v of the one before outlive a kill; end them", exit.Survivors))
	}
	_ = o.keeper.Forget(ctx, c.proc.Name) // a record that stays does no harm: the next spawn under its name forgets it
	switch {
	case c.role == roleSuccessor:
		o.badHash = c.hash
		o.refuse(ctx, describe(exit))
	case !o.alive && o.goal != goalRun && o.shown.State == status.Stopping:
		o.show(ctx, status.Stopped, o.parting)
	default:
		o.show(ctx, o.shown.State, o.shown.Reason)
	}
}

// promote makes the successor the instance's process because the one that served has ended by itself.
func (o *owner) promote(ctx context.Context, reason string) {
	c := o.beside
	c.stop()
	o.beside = nil
	_ = o.keeper.Forget(ctx, o.proc.Name) // as in besideEnded
	o.log.WarnContext(ctx, "the old process ended before the new one could work", "reason", reason)
	o.become(ctx, c)
	o.up(ctx)
}

// alone drops a successor, because the instance is to stop or to be another one.
func (o *owner) alone(ctx context.Context) {
	if o.beside != nil && o.beside.role == roleSuccessor {
		o.beside.role = roleGivenUp
		o.dismiss(ctx, o.beside)
	}
}

// change is what the board shows of a replacement.
func (o *owner) change() (change status.Change, reason string, pid int) {
	c := o.beside
	switch {
	case o.gaveUp != "" && o.alive:
		if c != nil {
			pid = c.proc.PID
		}
		return status.ChangeFailed, o.gaveUp, pid
	case c == nil:
		return "", "", 0
	case c.role == roleSuccessor:
		return status.ChangeStarting, fmt.Sprintf("its successor (pid %d) starts beside it", c.proc.PID), c.proc.PID
	default:
		return status.ChangeDraining, fmt.Sprintf("its predecessor (pid %d) finishes what it has in hand", c.proc.PID), c.proc.PID
	}
}

// drainMark is the name under which marks remember which process of an instance has been asked to end.
func drainMark(instance string) string { return "drain " + instance }

// instanceOf names the instance of a process.
func instanceOf(p keeper.Process) string {
	if name := p.Labels[labelInstance]; name != "" {
		return name
	}
	return plan.InstanceOf(p.Name)
}
