package supervisor

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/schedule"
	"github.com/hozo-dev/hozo/internal/status"
)

// labelTick names the tick that a process was started for. The keeper gives it back, so that whatever a supervisor had
// time to write down, the next one does not start a second process for the tick.
const labelTick = "tick"

// envTick tells a program which tick it is run for, in RFC 3339.
const envTick = "HOZO_TICK"

const (
	// lateness is how late a tick is dealt with as if it were in time: a node is back within a second of its end, an
	// upgrade within some. What is later has been missed.
	lateness = time.Minute
	// longestNap bounds how long a timetable trusts its timer: timers follow the monotonic clock, ticks that on the wall.
	longestNap = 5 * time.Second
	// maxSetBack is how far the clock may be set back without a tick coming twice. Beyond, it was wrong before, and a
	// schedule that waited for that time to come again would look dead.
	maxSetBack = 3 * time.Hour
	// maxLanes bounds the runs that overlap one another.
	maxLanes = 16
)

// timetable is the schedule of one instance with what has come of it.
type timetable struct {
	plan  *plan.Schedule // nil: there is no schedule
	ticks schedule.Schedule
	next  time.Time // the tick that is awaited
	at    tickRecord
	timer *time.Timer
}

func newTimetable() *timetable {
	t := &timetable{timer: time.NewTimer(0)}
	t.timer.Stop()
	return t
}

// ticksOf returns the ticks of a schedule.
func ticksOf(p plan.Schedule, instance string) (schedule.Schedule, error) {
	var s schedule.Schedule
	var err error
	if p.Every > 0 {
		s, err = schedule.Every(p.Every)
	} else {
		zone := time.Local
		if p.Zone != "" {
			if zone, err = time.LoadLocation(p.Zone); err != nil {
				return s, err
			}
		}
		s, err = schedule.Cron(p.Cron, zone)
	}
	return s.WithJitter(p.Jitter, instance), err
}

// keepTime makes the timetable that of want. A new one begins now; one that an earlier supervisor kept goes on from there.
func (o *owner) keepTime(ctx context.Context) {
	t, p := o.table, o.want.Schedule
	if p == nil {
		t.timer.Stop()
		if t.plan != nil {
			o.saveTicks(ctx, o.tickFile.drop(o.name))
		}
		t.plan, t.next, t.at = nil, time.Time{}, tickRecord{}
		return
	}
	if t.plan != nil && *t.plan == *p {
		return
	}
	fresh := t.plan == nil
	t.plan = p
	var err error
	if t.ticks, err = ticksOf(*p, o.name); err != nil {
		o.log.ErrorContext(ctx, "schedule cannot be kept", "err", err) // the manifest was checked: a zone has gone since
		return
	}
	now := o.now()
	if fresh {
		t.at = o.tickFile.get(o.name)
		o.last = t.at.Last
		if of := tickOf(o.proc); of.After(t.at.Tick) {
			t.at.Tick = of
		}
		for _, of := range o.lanes {
			if of.After(t.at.Tick) {
				t.at.Tick = of
			}
		}
	}
	o.setBack(ctx, now)
	switch last := t.ticks.Last(t.at.Tick, now); {
	case fresh && t.at.Queued != nil && !o.alive && tickOf(o.proc).Before(*t.at.Queued):
		t.next = *t.at.Queued // it had not come to its start
		o.nap()
		return
	case t.at.Tick.IsZero(), !fresh:
		t.at.Tick = now
		o.saveTicks(ctx, o.tickFile.put(o.name, t.at))
	case !last.IsZero() && now.Sub(last) > lateness && p.Missed == plan.RunOnce:
		t.next = last
		o.nap()
		return
	case !last.IsZero() && now.Sub(last) > lateness:
		o.log.InfoContext(ctx, "ticks were missed", "last", last)
		t.at.Tick = last
		o.saveTicks(ctx, o.tickFile.put(o.name, t.at))
	}
	t.next = t.ticks.Next(t.at.Tick)
	o.nap()
}

// saveTicks reports a file that could not be written. The labels of the keeper's processes say the same for as long as
// those are remembered.
func (o *owner) saveTicks(ctx context.Context, err error) {
	if err != nil {
		o.log.WarnContext(ctx, "ticks are not remembered", "err", err)
	}
}

func (o *owner) nap() {
	t := o.table
	if t.next.IsZero() {
		t.timer.Stop()
		return
	}
	t.timer.Reset(max(0, min(longestNap, t.ticks.Due(t.next).Sub(o.now()))))
}

// tick looks whether a tick is due, and deals with the newest. When the clock on the wall has been set forward those
// before it count as one with it; when it has been set back, ticks that were dealt with do not come again.
func (o *owner) tick(ctx context.Context) {
	t := o.table
	now := o.now()
	anew := o.setBack(ctx, now)
	if t.next.IsZero() || t.ticks.Due(t.next).After(now) {
		o.nap()
		if anew {
			o.show(ctx, o.shown.State, o.shown.Reason)
		}
		return
	}
	due := t.next
	if newest := t.ticks.Last(t.next, now); !newest.IsZero() && !t.ticks.Due(newest).After(now) {
		due = newest
	}
	o.arrive(ctx, due)
	t.next = t.ticks.Next(t.at.Tick)
	o.nap()
	o.show(ctx, o.shown.State, o.shown.Reason)
}

// arrive deals with a tick.
func (o *owner) arrive(ctx context.Context, tick time.Time) {
	t := o.table
	busy := o.alive || o.shown.State == status.Starting || o.shown.State == status.Pending && !o.due.IsZero()
	switch {
	case o.goal != goalRun || o.blocked != "":
		t.at.Tick = tick // somebody stopped it, and that holds
	case !busy:
		o.runTick(ctx, tick)
		return
	case t.plan.Overlap == plan.Queue:
		o.log.InfoContext(ctx, "tick waits for the run before it", "tick", tick)
		t.at.Tick, t.at.Queued = tick, &tick
	case t.plan.Overlap == plan.Allow && len(o.lanes) < maxLanes:
		t.at.Tick = tick
		o.startLane(ctx, tick)
	default:
		o.log.InfoContext(ctx, "tick skipped: the run before it goes on", "tick", tick)
		t.at.Tick = tick
	}
	o.saveTicks(ctx, o.tickFile.put(o.name, t.at))
}

// runTick starts the instance for a tick.
func (o *owner) runTick(ctx context.Context, tick time.Time) {
	// The record of the run before goes with the start, and its tick must not be forgotten with it.
	o.saveTicks(ctx, o.tickFile.put(o.name, o.table.at))
	o.due = tick
	o.backoff.forgive()
	o.timer.Stop()
	o.begin(ctx)
	if ctx.Err() != nil {
		return // the keeper's record tells the next supervisor whether it was started
	}
	o.table.at.Tick, o.table.at.Queued = later(o.table.at.Tick, tick), nil
	if !o.alive && (o.shown.State == status.Starting || o.shown.State == status.Pending) {
		o.table.at.Queued = &tick // it waits for a need or a hook
	}
	o.saveTicks(ctx, o.tickFile.put(o.name, o.table.at))
}

// ticked remembers that the tick that waited has been started, or could not be.
func (o *owner) ticked(ctx context.Context) {
	if at := &o.table.at; o.table.plan != nil && at.Queued != nil && at.Queued.Equal(o.due) {
		at.Queued = nil
		o.saveTicks(ctx, o.tickFile.put(o.name, *at))
	}
}

// setBack begins anew, and says so, when the clock on the wall has been set back by more than maxSetBack since the last tick.
func (o *owner) setBack(ctx context.Context, now time.Time) bool {
	t := o.table
	if t.at.Tick.Sub(now) <= maxSetBack {
		return false
	}
	o.log.WarnContext(ctx, "the clock was set back, the schedule begins anew", "tick", t.at.Tick, "now", now)
	t.at.Tick = now
	t.next = t.ticks.Next(now)
	o.saveTicks(ctx, o.tickFile.put(o.name, t.at))
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// note keeps how a run has ended, and starts the one that waited for that.
func (o *owner) note(exit keeper.Exit) {
	o.last = &lastRun{Started: o.proc.Started, Took: exit.Time.Sub(o.proc.Started), Result: describe(exit)}
	o.table.at.Last = o.last
}

// dequeue starts the run that waited for the one before it to end.
func (o *owner) dequeue(ctx context.Context) {
	t := o.table
	if t.plan == nil {
		return
	}
	o.saveTicks(ctx, o.tickFile.put(o.name, t.at))
	if t.at.Queued == nil || o.goal != goalRun || o.shown.State != status.Exited {
		return
	}
	o.runTick(ctx, *t.at.Queued)
}

// rests says whether the instance waits for a tick and not for anything else.
func (o *owner) rests() bool { return o.want.Schedule != nil && o.due.IsZero() }

func tickOf(p keeper.Process) time.Time {
	nanos, err := strconv.ParseInt(p.Labels[labelTick], 10, 64)
	if err != nil || nanos == 0 {
		return time.Time{} // it was not started by a schedule
	}
	return time.Unix(0, nanos)
}

// withTick is an environment with the tick that a process is started for.
func withTick(env []string, tick time.Time) []string {
	if tick.IsZero() {
		return env
	}
	return append(slices.Clone(env), envTick+"="+tick.Format(time.RFC3339Nano))
}

func tickLabel(tick time.Time) string {
	if tick.IsZero() {
		return ""
	}
	return strconv.FormatInt(tick.UnixNano(), 10)
}

// startLane runs a tick beside the run before it.
func (o *owner) startLane(ctx context.Context, tick time.Time) {
	name, lane := "", ""
	for n := 2; ; n++ {
		lane = strconv.Itoa(n)
		name = sideName(o.name, lane)
		if _, taken := o.lanes[name]; !taken {
			break
		}
	}
	s := o.request(o.want, o.want.Hash())
	s.Env = withTick(o.want.Env, tick)
	s.Name, s.Log, s.Notify = name, sideLog(o.want.Log, lane), false
	s.Labels = map[string]string{labelSide: "", labelTick: tickLabel(tick)}
	_ = o.keeper.Forget(ctx, name) // as in begin
	if _, err := o.keeper.Spawn(ctx, s); err != nil {
		o.log.WarnContext(ctx, "overlapping run cannot be started", "tick", tick, "err", err)
		return
	}
	o.lanes[name] = tick
}

// laneHeard forgets an overlapping run that has ended.
func (o *owner) laneHeard(ctx context.Context, p keeper.Process) {
	if p.Exit == nil {
		return
	}
	o.log.InfoContext(ctx, "overlapping run ended", "run", p.Name, "result", describe(*p.Exit))
	delete(o.lanes, p.Name)
	_ = o.keeper.Forget(ctx, p.Name) // a record that stays is forgotten before the name is used again
	if o.table.plan != nil {
		o.table.at.Last = &lastRun{Started: p.Started, Took: p.Exit.Time.Sub(p.Started), Result: describe(*p.Exit)}
		o.last = o.table.at.Last
		o.saveTicks(ctx, o.tickFile.put(o.name, o.table.at))
	}
	o.show(ctx, o.shown.State, o.shown.Reason)
}

// stopLanes ends the runs that overlap.
func (o *owner) stopLanes(ctx context.Context) {
	for name := range o.lanes {
		_ = o.keeper.Kill(ctx, name) // it may have ended
	}
}

// timesOf adds to an entry when the instance runs next and how it did last.
func (o *owner) timesOf(i *status.Instance) {
	if o.table.plan != nil && !o.table.next.IsZero() && o.goal == goalRun {
		i.Next = o.table.ticks.Due(o.table.next)
	}
	if o.last != nil {
		i.LastRun, i.LastSeconds, i.LastResult = o.last.Started, o.last.Took.Seconds(), o.last.Result
	}
	if n := len(o.lanes); n > 0 {
		i.Overlapping = n
	}
}
