// Package cron turns ticks into tasks, each tick into one.
//
// What has come of a cron is a message in the stream of its task's queue, and a tick is dealt with by storing the next
// state and the task in one atomic batch, on condition that the state is as it was read. So a tick is a task once, however
// many runners there are and wherever one of them, or the broker, is killed: the batch is stored as a whole or not at all,
// and whoever comes second finds another state.
//
// Decide is pure; Runner does what it says.
package cron

import (
	"time"

	"github.com/hozo-dev/hozo/internal/schedule"
)

const (
	// Lateness is how late a tick is dealt with as if it were in time: a restart or an upgrade, not a host that was down.
	// It is that of scheduled services.
	Lateness = time.Minute

	// maxSetBack is how far the clock may be set back without a tick coming twice. Beyond, it was wrong before, and a
	// cron that waited for that time to come again would look dead.
	maxSetBack = 3 * time.Hour

	// MostCaughtUp bounds the ticks that CatchUpAll makes up for; older ones are left out.
	MostCaughtUp = 1000
)

// What a tick does while the task of the tick before it is still in the queue, in hand or waits for its next attempt.
const (
	OverlapSkip  = "skip"  // nothing
	OverlapQueue = "queue" // it waits; of several the newest
	OverlapAllow = "allow" // its task is enqueued as well
)

// What becomes of ticks that nobody dealt with for longer than Lateness.
const (
	CatchUpNone = "none" // nothing
	CatchUpOne  = "one"  // the newest of them is dealt with
	CatchUpAll  = "all"  // all of them are, the oldest first
)

// Entry is one cron.
type Entry struct {
	Name  string
	Queue string // of the kind
	Kind  string
	Args  []byte // of its tasks

	Priority int // of its tasks, 1 to 3
	Ticks    schedule.Schedule
	Overlap  string
	CatchUp  string
	Rule     string // digest of what decides when it is due: with another one the cron begins anew
}

// State is what has come of a cron.
type State struct {
	Rule    string    `json:"rule"`
	Tick    time.Time `json:"tick"`             // the newest that was dealt with
	Queued  time.Time `json:"queued,omitzero"`  // the one that waits for the task of another
	MakeUp  time.Time `json:"make_up,omitzero"` // until then ticks were missed that are being made up for
	Fired   time.Time `json:"fired,omitzero"`   // tick of the last task
	Task    string    `json:"task,omitempty"`   // its id
	Count   uint64    `json:"count"`            // tasks
	Skipped uint64    `json:"skipped"`          // ticks that were none because of Overlap
}

// TaskID is the id of the task of a tick.
func (e Entry) TaskID(tick time.Time) string {
	return "cron:" + e.Name + ":" + tick.UTC().Format(time.RFC3339)
}

// Due reports whether there is something to decide.
func (e Entry) Due(s State, now time.Time) bool {
	if s.Rule != e.Rule || s.Tick.Sub(now) > maxSetBack || !s.Queued.IsZero() {
		return true
	}
	next := e.Ticks.Next(s.Tick)
	return !next.IsZero() && !next.After(now)
}

// Next is when the cron is due after what s says; the zero time when it never is.
func (e Entry) Next(s State, now time.Time) time.Time {
	if s.Rule != e.Rule || s.Tick.Sub(now) > maxSetBack {
		return e.Ticks.Next(now)
	}
	return e.Ticks.Next(s.Tick)
}

// Decide makes the next state of a cron that is due; busy says that the last task has not ended. At most one tick is
// fired, so it is asked again until nothing is due, or until what it returns is s.
func (e Entry) Decide(s State, now time.Time, busy bool) (next State, fire time.Time) {
	next = s
	if s.Rule != e.Rule || s.Tick.Sub(now) > maxSetBack {
		next.Rule, next.Tick, next.Queued = e.Rule, now.UTC().Round(0), time.Time{}
		return next, time.Time{}
	}
	free := !busy || e.Overlap == OverlapAllow
	if !s.Queued.IsZero() && free {
		next.Queued = time.Time{}
		return e.fire(next, s.Queued)
	}
	tick := e.Ticks.Next(s.Tick)
	if tick.IsZero() || tick.After(now) {
		return next, time.Time{}
	}
	if now.Sub(tick) > Lateness {
		switch e.CatchUp {
		case CatchUpOne:
			tick = e.Ticks.Last(s.Tick, now)
		case CatchUpAll:
			if !tick.Before(s.MakeUp) {
				tick, next.MakeUp = e.oldest(s.Tick, now), now.UTC().Round(0)
			}
		default:
			next.Tick = e.Ticks.Last(s.Tick, now).UTC()
			return next, time.Time{}
		}
	}
	next.Tick = tick.UTC()
	switch {
	case free:
		return e.fire(next, tick)
	case e.Overlap == OverlapQueue:
		if !next.Queued.IsZero() {
			next.Skipped++
		}
		next.Queued = tick.UTC()
	default:
		next.Skipped++
	}
	return next, time.Time{}
}

func (e Entry) fire(next State, tick time.Time) (State, time.Time) {
	next.Fired, next.Task = tick.UTC(), e.TaskID(tick)
	next.Count++
	return next, tick
}

// oldest is the first tick after a moment of which no more than MostCaughtUp follow until now.
func (e Entry) oldest(after, now time.Time) time.Time {
	// From the end, over growing spans: a cron of seconds may have been away for years.
	for span := time.Hour; ; span *= 4 {
		from := now.Add(-span)
		if from.Before(after) {
			from = after
		}
		var ticks []time.Time
		for t := e.Ticks.Next(from); !t.IsZero() && !t.After(now); t = e.Ticks.Next(t) {
			ticks = append(ticks, t)
		}
		if len(ticks) >= MostCaughtUp || !from.After(after) {
			return ticks[max(0, len(ticks)-MostCaughtUp)]
		}
	}
}
