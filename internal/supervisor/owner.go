package supervisor

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// goal is what an instance is meant to do.
type goal int

const (
	goalRun    goal = iota // run, as its restart policy says
	goalStop               // stay stopped
	goalRemove             // stop and be forgotten
)

// owner is the one goroutine that acts on an instance. It is built and shown first by Apply; from then on everything in
// it but commands, inbox, done, removed and leaving belongs to run.
type owner struct {
	name     string
	keeper   Keeper
	board    *board
	sockets  *sockets
	marks    *marks
	log      *slog.Logger
	commands chan *command
	inbox    *inbox
	sides    *sides
	tickFile *ticks
	now      func() time.Time
	done     chan struct{} // closed when run has returned
	removed  bool          // it has ended because nobody wants the instance; to be read after done
	leaving  bool          // its removal has begun; guarded by the Supervisor's mu

	goal    goal
	want    plan.Spec // as applied last
	live    plan.Spec // what the process was started with, with hot changes; meaningful while one runs
	blocked string    // why want cannot be started at all: its sockets

	proc  keeper.Process // the last incarnation; zero before the first
	hash  string         // of what proc was started with
	parts *parts         // of what proc was started with; nil when nobody knows
	alive bool
	gen   uint64 // counts incarnations
	found bool   // proc was adopted and has not been seen ready yet

	limited string // the run whose limits were changed last

	wanted *parts // of want; see wantParts

	beside  *companion // starts or drains beside proc; nil most of the time
	gaveUp  string     // why the last replacement was given up, until the next one
	badHash string     // of what was given up: proc's successor is live again, as long as want is that
	botched uint64     // how many replacements were given up
	parting string     // how proc ended, for when its predecessor has, too

	shown   entry // what the board shows
	falls   uint64
	fine    bool   // it has Exited with status 0
	again   bool   // start again once the process has ended, because somebody asked for it
	verdict string // why the supervisor itself ends the process: it counts as a crash
	rolling bool   // want waits for its turn
	self    bool   // the process stops by its own word
	backoff backoff

	probe   *probe
	hits    int   // successful probes in a row
	misses  int   // failed probes in a row
	lastErr error // of the last failed probe
	pulse   *probe
	ails    int  // failed liveness probes in a row
	lived   bool // a liveness probe has succeeded

	hooks   *hooks
	givenUp bool         // its budget is spent, and nothing starts it again
	lingers bool         // the process is gone, the hook after its stop runs
	leftAs  status.State // what it was shown as then
	table   *timetable
	due     time.Time            // the tick that it is started for; zero when a person or nobody asked
	last    *lastRun             // nil before the first run has ended
	lanes   map[string]time.Time // overlapping runs by name, with their ticks

	timer    *time.Timer       // ends the present state: Starting, Backoff, Failed or Stopping
	deadline time.Duration     // when it does, by keeper.Monotonic, if the process may ask for more time; else 0
	granted  time.Duration     // how long a stopping process was given
	dog      *time.Timer       // looks whether the process has pinged its watchdog
	guarded  time.Duration     // since when it has to, by keeper.Monotonic; 0: it has not
	needed   map[string]string // run of each instance after whose restart it starts again, too
}

// newOwner returns the owner of an instance that is wanted as spec, or blocked from it; left is what an earlier
// supervisor left of it, or nil.
func (s *Supervisor) newOwner(spec plan.Spec, blocked string, left *lineup, aside []keeper.Process) *owner {
	o := &owner{
		name: spec.Name, keeper: s.keeper, board: s.board, sockets: s.sockets, marks: s.marks,
		sides: newSides(), tickFile: s.ticks, now: s.now, table: newTimetable(), lanes: make(map[string]time.Time),
		log:      s.log.With("instance", spec.Name),
		commands: make(chan *command), inbox: newInbox(), done: make(chan struct{}),
		want: spec, live: spec, blocked: blocked,
		timer: idleTimer(), dog: idleTimer(),
	}
	var ofHooks []keeper.Process
	for _, p := range aside {
		if tick := tickOf(p); !tick.IsZero() {
			o.lanes[p.Name] = tick
			o.sides.put(p) // it may have ended
			continue
		}
		if strings.HasPrefix(p.Name, sideName(spec.Name, errandPrefix)) {
			continue // whoever waited for it has gone with the supervisor
		}
		if left == nil {
			p.Labels[labelSide] = "" // of the start that was next when the record of the run before had gone
		}
		ofHooks = append(ofHooks, p)
	}
	o.hooks = newHooks(ofHooks)
	if left == nil && s.marks.has(spec.Name, unborn) {
		o.goal = goalStop
	}
	if left != nil {
		found := left.current
		o.proc, o.hash, o.alive, o.gen = found, found.Labels[labelHash], found.Exit == nil, uint64(max(1, generation(found)))
		if p := left.beside; p != nil {
			o.gen = max(o.gen, uint64(generation(*p)))
			o.beside = &companion{role: roleSuccessor, proc: *p, spec: spec, hash: p.Labels[labelHash], parts: &parts{cold: partsOf(p.Labels)}, timer: idleTimer()}
			if left.draining {
				o.beside.role = rolePredecessor
			}
		}
		o.parts = &parts{cold: partsOf(found.Labels)}
		o.found, o.due = o.alive, tickOf(found)
		if !o.alive && o.changed() {
			o.due = time.Time{}
		}
		o.shown.Restarts, o.backoff = restartsOf(found.Labels), backoffOf(found.Labels[labelBackoff])
		_ = json.Unmarshal([]byte(found.Labels[labelNeeded]), &o.needed) // without it, what it needs counts from now on
		if s.marks.has(spec.Name, found.Run) {
			o.goal = goalStop
		}
	}
	return o
}

// idleTimer is a timer that does not run: since Go 1.23 a stopped one never yields.
func idleTimer() *time.Timer {
	t := time.NewTimer(0)
	t.Stop()
	return t
}

// changed says whether the process is not, or no longer, what is wanted.
func (o *owner) changed() bool { return o.hash != o.want.Hash() }

// replaceable says whether a process of another shape is to be replaced by what is wanted.
func (o *owner) replaceable() bool {
	// A run of a schedule ends by itself, and the next one is as it is wanted.
	return o.changed() && o.blocked == "" && o.goal == goalRun && o.want.Schedule == nil
}

// first shows the instance before run, so that the owners launched with it see it.
func (o *owner) first(ctx context.Context) {
	o.keepTime(ctx)
	switch {
	case o.alive && o.replaceable() && !o.succeeded():
		o.board.roll(o.name)
		fallthrough
	case o.alive:
		o.show(ctx, status.Starting, "adopted")
	case o.goal == goalStop && o.proc.Run == "":
		o.show(ctx, status.Stopped, "")
	case o.rests():
		o.show(ctx, status.Scheduled, "")
	default:
		o.show(ctx, status.Pending, "")
	}
}

// run owns the instance until it is removed or ctx is done; then the process, if any, runs on.
func (o *owner) run(ctx context.Context) {
	defer close(o.done)
	defer func() {
		o.unwatch()
		o.beside.stop()
	}()
	defer o.timer.Stop()
	defer o.hooks.timer.Stop()
	defer o.table.timer.Stop()

	o.enter(ctx)
	for {
		// The channel is taken before looking, so that no change is missed.
		var changed <-chan struct{}
		if o.waits() {
			changed = o.board.changed()
			o.look(ctx)
		}
		if o.goal == goalRemove && !o.alive && o.beside == nil {
			o.unstore(ctx)
			for _, name := range []string{o.name, plan.OtherName(o.name)} {
				_ = o.keeper.Forget(ctx, name) // a record that stays does no harm: nothing runs under it
			}
			o.endSides(ctx)
			o.saveTicks(ctx, o.tickFile.drop(o.name))
			o.board.remove(o.name)
			o.removed = true
			return
		}
		select {
		case <-ctx.Done():
			return
		case c := <-o.commands:
			c.falls, c.botched = o.falls, o.botched
			o.obey(ctx, c)
			close(c.taken)
		case <-o.inbox.wake:
			for _, p := range o.inbox.take() {
				o.hear(ctx, p)
			}
		case err := <-o.probe.result():
			o.probed(ctx, err)
		case err := <-o.pulse.result():
			o.felt(ctx, err)
		case <-o.timer.C:
			o.expired(ctx)
		case err := <-o.beside.result():
			o.successorProbed(ctx, err)
		case <-o.beside.expired():
			o.besideExpired(ctx)
		case <-o.dog.C:
			o.barked(ctx)
		case <-o.sides.wake:
			o.heardSides(ctx)
		case <-o.hooks.timer.C:
			o.hookExpired(ctx)
		case <-o.table.timer.C:
			o.tick(ctx)
		case <-changed:
		}
	}
}

// enter starts from what the keeper knew of the instance.
func (o *owner) enter(ctx context.Context) {
	defer o.enterBeside(ctx)
	if o.alive && !o.changed() {
		o.relog(ctx, o.proc.Name) // what the last supervisor wanted is not known
	}
	switch {
	case o.alive && o.goal == goalStop:
		o.halt(ctx, "asked to stop") // which was not seen through
	case o.goal == goalStop && o.proc.Exit != nil:
		o.ended(ctx)
	case o.alive && o.changed():
		// Nobody knows how the old shape is probed. It counts as able to work until its turn comes.
		o.live.Health, o.live.Liveness = nil, nil
		o.rolling = o.replaceable() && !o.succeeded()
		o.up(ctx)
	case o.alive:
		o.limit(ctx)
		o.up(ctx)
	case o.blocked != "":
		o.show(ctx, status.Failed, o.blocked)
	case o.proc.Exit != nil && !o.changed():
		o.ended(ctx) // while nobody watched
	}
	// Otherwise it is pending, and the first look starts it.
}

// succeeded says whether what is wanted was starting beside the process already.
func (o *owner) succeeded() bool {
	return o.beside != nil && o.beside.role == roleSuccessor && o.beside.hash == o.want.Hash()
}

// enterBeside goes on with the process that an earlier supervisor left beside the one that serves.
func (o *owner) enterBeside(ctx context.Context) {
	c := o.beside
	switch {
	case c == nil:
	case c.role == roleSuccessor && o.succeeded() && o.alive && o.goal == goalRun:
		o.accompany(ctx, c)
	case c.role == roleSuccessor:
		c.role = roleGivenUp
		o.dismiss(ctx, c)
		o.show(ctx, o.shown.State, o.shown.Reason)
	default: // it has been asked
		c.await(c.spec.Stop.Grace)
		o.show(ctx, o.shown.State, o.shown.Reason)
	}
}

// waits says whether the instance waits for a change of another one.
func (o *owner) waits() bool {
	return o.shown.State == status.Pending && o.goal == goalRun || o.rolling || o.follows()
}

// look goes on with what waits for others: a start for its needs, a change for its turn.
func (o *owner) look(ctx context.Context) {
	if o.shown.State == status.Pending && o.goal == goalRun {
		o.begin(ctx)
	}
	if o.follows() {
		o.follow(ctx)
	}
	if o.rolling && o.beside == nil && o.board.myTurn(o.want.Service, o.name, o.want.Rolling.Width()) {
		if o.surges() && o.board.unmet(o.want.Needs) != "" {
			return // the process that serves does not make room for one that cannot start
		}
		o.replace(ctx)
	}
}

// show puts the instance on the board and, when its state or the reason is new, in the log.
func (o *owner) show(ctx context.Context, state status.State, reason string) {
	e := entry{
		Instance: status.Instance{
			Name: o.name, State: state, Since: o.shown.Since, Restarts: o.shown.Restarts, Reason: reason, Log: o.want.Log.Path,
		},
		service: o.want.Service, alive: o.alive, falls: o.falls,
		completed: state == status.Exited && o.fine, botched: o.botched,
		hash: o.want.Hash(), hot: o.want.HotHash(), parts: o.wantParts(), stopped: o.goal == goalStop,
	}
	o.timesOf(&e.Instance)
	e.essential, e.code = o.endsAll(state)
	if o.alive && !o.lingers {
		e.run = o.proc.Run
		e.PID, e.hash, e.parts, e.Log, e.Status = o.proc.PID, o.hash, o.parts, o.live.Log.Path, o.proc.Status
		e.LimitsUnmet, e.LimitsFix = unmet(o.proc)
	}
	e.Change, e.ChangeReason, e.NextPID = o.change()
	if state != o.shown.State || e.PID != o.shown.PID {
		e.Since = time.Now()
	}
	if o.found && state == status.Ready {
		e.Since = o.proc.Started // it has been, for all that anybody saw
		o.found = false
	}
	fresh := state != o.shown.State || reason != o.shown.Reason || e.Change != o.shown.Change
	o.shown = e
	o.board.set(e)
	if fresh {
		o.log.InfoContext(ctx, "instance changed", "state", string(state), "reason", reason, "pid", e.PID, "run", o.gen, "change", string(e.Change))
	}
}
