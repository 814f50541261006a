package cron_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/cron"
	"github.com/hozo-dev/hozo/internal/schedule"
)

func entry(t *testing.T, expression, zone, overlap, catchUp string) cron.Entry {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	ticks, err := schedule.Cron(expression, loc)
	if err != nil {
		t.Fatal(err)
	}
	return cron.Entry{Name: "digest", Ticks: ticks, Overlap: overlap, CatchUp: catchUp, Rule: expression + zone}
}

// cell is the state of a cron in the broker: it is replaced by whoever has read the newest.
type cell struct {
	state    cron.State
	revision int
	tasks    []time.Time
}

// runner is one of several that look after the same cron.
type runner struct {
	state    cron.State
	revision int
}

// turn does what is due, and is killed where die says so: before it stores, or before it hears that it was stored.
func (r *runner) turn(e cron.Entry, c *cell, now time.Time, busy bool, die func() bool) {
	for e.Due(r.state, now) {
		next, fire := e.Decide(r.state, now, busy)
		if next == r.state && fire.IsZero() {
			return
		}
		if die() {
			break
		}
		if r.revision != c.revision { // refused: look again
			r.state, r.revision = c.state, c.revision
			continue
		}
		c.state, c.revision = next, c.revision+1
		if !fire.IsZero() {
			c.tasks = append(c.tasks, fire)
		}
		if die() {
			break
		}
		r.state, r.revision = next, c.revision
	}
	if r.revision != c.revision && die() { // a new one begins with what is stored
		r.state, r.revision = c.state, c.revision
	}
}

func TestADayWithThreeRunnersAndRestartsHasEachTickOnce(t *testing.T) {
	t.Parallel()
	// The days on which the clocks of Berlin change, and one on which they do not.
	for _, day := range []string{"2026-03-29", "2026-10-25", "2026-07-01"} {
		for _, expression := range []string{"*/7 * * * * *", "0 30 * * * *", "0 30 2 * * *", "@hourly"} {
			t.Run(day+" "+expression, func(t *testing.T) {
				t.Parallel()
				e := entry(t, expression, "Europe/Berlin", cron.OverlapAllow, cron.CatchUpNone)
				zone, _ := time.LoadLocation("Europe/Berlin")
				begin, err := time.ParseInLocation(time.DateOnly, day, zone)
				if err != nil {
					t.Fatal(err)
				}
				begin = begin.Add(-time.Second)
				end := begin.Add(25 * time.Hour)
				random := rand.New(rand.NewPCG(2, 1))
				c := &cell{state: cron.State{Rule: e.Rule, Tick: begin}, revision: 1}
				runners := make([]runner, 3)
				for i := range runners {
					runners[i] = runner{c.state, c.revision}
				}
				for now := begin; now.Before(end); now = now.Add(time.Duration(random.Int64N(int64(9 * time.Second)))) {
					// Now and then all of them are away for most of a minute.
					if random.IntN(200) == 0 {
						now = now.Add(time.Duration(random.Int64N(int64(cron.Lateness - 10*time.Second))))
					}
					one := &runners[random.IntN(len(runners))]
					one.turn(e, c, now, false, func() bool { return random.IntN(10) == 0 })
				}
				for i := range runners {
					runners[i].turn(e, c, end, false, func() bool { return false })
				}
				var want []time.Time
				for tick := e.Ticks.Next(begin); !tick.After(end); tick = e.Ticks.Next(tick) {
					want = append(want, tick)
				}
				if !slices.EqualFunc(c.tasks, want, time.Time.Equal) {
					t.Errorf("%d tasks of %d ticks", len(c.tasks), len(want))
				}
				if len(want) < 1 || uint64(len(want)) != c.state.Count {
					t.Errorf("%d tasks were counted of %d", c.state.Count, len(want))
				}
			})
		}
	}
}

// settle decides until nothing is due, or nothing changes.
func settle(e cron.Entry, s cron.State, now time.Time, busy func(cron.State) bool) (cron.State, []string) {
	var fired []string
	for e.Due(s, now) {
		next, fire := e.Decide(s, now, busy(s))
		if !fire.IsZero() {
			fired = append(fired, fire.UTC().Format(time.TimeOnly))
		}
		if next == s {
			break
		}
		s = next
	}
	return s, fired
}

func TestTicksThatWereMissed(t *testing.T) {
	t.Parallel()
	last := time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)
	free := func(cron.State) bool { return false }
	tests := map[string]struct {
		catchUp string
		away    time.Duration
		want    []string
	}{
		"in time":          {cron.CatchUpNone, 10 * time.Minute, []string{"10:10:00"}},
		"a little late":    {cron.CatchUpNone, 10*time.Minute + 50*time.Second, []string{"10:10:00"}},
		"missed, none":     {cron.CatchUpNone, 35 * time.Minute, nil},
		"missed, one":      {cron.CatchUpOne, 35 * time.Minute, []string{"10:30:00"}},
		"missed, all":      {cron.CatchUpAll, 35 * time.Minute, []string{"10:10:00", "10:20:00", "10:30:00"}},
		"nothing was due":  {cron.CatchUpAll, 9 * time.Minute, nil},
		"clock a bit back": {cron.CatchUpAll, -2 * time.Hour, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := entry(t, "*/10 * * * *", "UTC", cron.OverlapAllow, test.catchUp)
			s, fired := settle(e, cron.State{Rule: e.Rule, Tick: last}, last.Add(test.away), free)
			if !slices.Equal(fired, test.want) {
				t.Errorf("fired %v, want %v", fired, test.want)
			}
			if again, more := settle(e, s, last.Add(test.away), free); again != s || more != nil {
				t.Errorf("asked again it fires %v and is %+v", more, again)
			}
		})
	}
	t.Run("a year of seconds", func(t *testing.T) {
		t.Parallel()
		e := entry(t, "* * * * * *", "UTC", cron.OverlapAllow, cron.CatchUpAll)
		now := last.AddDate(1, 0, 0)
		_, fired := settle(e, cron.State{Rule: e.Rule, Tick: last}, now, free)
		if len(fired) != cron.MostCaughtUp || fired[len(fired)-1] != now.Format(time.TimeOnly) {
			t.Errorf("%d are fired, the last %v", len(fired), fired[len(fired)-1])
		}
	})
}

func TestTicksWhileTheTaskBeforeGoesOn(t *testing.T) {
	t.Parallel()
	last := time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)
	for overlap, want := range map[string][]string{
		cron.OverlapSkip: nil, cron.OverlapQueue: {"10:00:03"}, cron.OverlapAllow: {"10:00:01", "10:00:02", "10:00:03"},
	} {
		t.Run(overlap, func(t *testing.T) {
			t.Parallel()
			e := entry(t, "* * * * * *", "UTC", overlap, cron.CatchUpNone)
			s := cron.State{Rule: e.Rule, Tick: last, Task: "before"}
			var fired []string
			for i := 1; i <= 3; i++ {
				var some []string
				s, some = settle(e, s, last.Add(time.Duration(i)*time.Second), func(cron.State) bool { return true })
				fired = append(fired, some...)
			}
			now := last.Add(3*time.Second + time.Millisecond)
			s, some := settle(e, s, now, func(s cron.State) bool { return s.Task != "before" })
			if fired = append(fired, some...); !slices.Equal(fired, want) {
				t.Errorf("fired %v, want %v", fired, want)
			}
			if s.Count+s.Skipped != 3 {
				t.Errorf("of three ticks %d were fired and %d skipped", s.Count, s.Skipped)
			}
		})
	}
}

func TestACronBeginsAnew(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)
	e := entry(t, "* * * * *", "UTC", cron.OverlapQueue, cron.CatchUpAll)
	for name, s := range map[string]cron.State{
		"first":                 {},
		"another rule":          {Rule: "else", Tick: now.Add(-time.Hour), Queued: now.Add(-time.Hour)},
		"clock was in the past": {Rule: e.Rule, Tick: now.Add(4 * time.Hour)},
	} {
		next, fired := settle(e, s, now, func(cron.State) bool { return false })
		if len(fired) > 0 || !next.Tick.Equal(now) || next.Rule != e.Rule || !next.Queued.IsZero() {
			t.Errorf("%s: it is %+v and fires %v", name, next, fired)
		}
		if at := e.Next(s, now); !at.Equal(now.Add(time.Minute)) {
			t.Errorf("%s: due next at %v", name, at)
		}
	}
}
