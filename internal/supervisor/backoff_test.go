package supervisor

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hozo-dev/hozo/internal/plan"
)

func policy(change func(*plan.Restart)) plan.Restart {
	r := plan.Spec{}.WithDefaults().Restart
	if change != nil {
		change(&r)
	}
	return r
}

func TestBackoffDoublesToItsMaximumAndStartsOverAfterAStableRun(t *testing.T) {
	t.Parallel()
	r := policy(func(r *plan.Restart) { r.Max = time.Second })
	var b backoff
	for i, want := range []time.Duration{0, 100, 200, 400, 800, 1000, 1000} {
		if got := b.fell(r, 0, time.Second, 0); got != (again{after: want * time.Millisecond}) {
			t.Errorf("delay %d is %+v, want %dms", i, got, want)
		}
	}
	if got := b.fell(r, 0, 10*time.Second, 0); got.after != 0 {
		t.Errorf("after a stable run the delay is %s, want none", got.after)
	}
	if got := b.fell(r, 0, 0, 0); got.after != r.Delay {
		t.Errorf("the one after is %s, want %s", got.after, r.Delay)
	}
	var c backoff
	if got := c.fell(r, 0, time.Second-1, 0); got.after != r.Delay {
		t.Errorf("after a run too short to count as up the delay is %s, want %s", got.after, r.Delay)
	}
}

func TestBackoffStraysUpwardsByAFifth(t *testing.T) {
	t.Parallel()
	var low, high backoff
	if got := low.fell(policy(nil), 0, 0, 0).after; got != 100*time.Millisecond {
		t.Errorf("the shortest is %s", got)
	}
	if got := high.fell(policy(nil), 0, 0, 1).after; got != 120*time.Millisecond {
		t.Errorf("the longest is %s", got)
	}
}

// starts plays a program that exits up after each start, for as long as span, and returns when it was started.
func starts(b *backoff, r plan.Restart, up, span time.Duration, random func() float64) []time.Duration {
	var all []time.Duration
	for now := time.Duration(0); now < span; {
		b.started(r, now)
		all = append(all, now)
		now += up
		a := b.fell(r, now, up, random())
		if a.never {
			break
		}
		now += a.after
	}
	return all
}

func TestProgramThatKeepsExitingSpendsItsBudget(t *testing.T) {
	t.Parallel()
	second := func(r *plan.Restart) { r.Delay, r.Max = time.Second, time.Minute }
	for _, c := range []struct {
		name string
		r    plan.Restart
		up   time.Duration
		most int // starts within the first 5 minutes
	}{
		{"exits before it counts as up, slow", policy(second), 1010 * time.Millisecond, 10},
		{"exits before it counts as up, fail", policy(func(r *plan.Restart) { second(r); r.Then = plan.Fail }), 1010 * time.Millisecond, 10},
		{"defaults", policy(nil), 1010 * time.Millisecond, 10 + 4}, // ten in the first minute, then one a minute
		{"exits at once", policy(nil), 0, 10 + 4},
		// Each run counts as stable, so that the delay is the shortest each time: the budget alone holds it.
		{"exits whenever it is stable", policy(nil), 10 * time.Second, 10 + 3},
		{"exits whenever it is stable, fail", policy(func(r *plan.Restart) { r.Then = plan.Fail }), 10 * time.Second, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, random := range []float64{0, 0.5, 0.999} {
				var b backoff
				n := len(starts(&b, c.r, c.up, 5*time.Minute, func() float64 { return random }))
				if n > c.most || n < c.most/2 {
					t.Errorf("with jitter %v it is started %d times in 5 minutes, at most %d are allowed", random, n, c.most)
				}
			}
		})
	}
}

func TestBudgetThatIsSpentIsTriedAgainSlowlyAndForgiven(t *testing.T) {
	t.Parallel()
	r := policy(func(r *plan.Restart) { r.Budget = 3 })
	zero := func() float64 { return 0 }
	var b backoff
	all := starts(&b, r, time.Second, 10*time.Minute, zero)
	for i := 4; i < len(all); i++ {
		if pause := all[i] - all[i-1]; pause != time.Second+r.RetryAfter {
			t.Errorf("start %d comes %s after the one before", i, pause)
		}
	}
	if len(all) < 10 {
		t.Errorf("only %d starts in 10 minutes: it was given up", len(all))
	}
	last := all[len(all)-1]
	b.started(r, last+2*r.Window)
	if a := b.fell(r, last+3*r.Window, r.Window, 0); a != (again{}) {
		t.Errorf("after a stable run it is %+v", a)
	}

	r.Then = plan.Fail
	var c backoff
	if n := len(starts(&c, r, time.Second, time.Hour, zero)); n != 3 {
		t.Errorf("it is started %d times before it is given up", n)
	}
	c.forgive()
	c.started(r, time.Hour)
	if a := c.fell(r, time.Hour+1, 1, 0); a != (again{after: r.Delay}) {
		t.Errorf("once forgiven it is %+v", a)
	}
}

// However it falls, a program is started no more often within a window than its budget, and then no sooner than
// RetryAfter; a supervisor that goes on from the label decides the same.
func TestAnyProgramKeepsWithinItsBudget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := policy(func(r *plan.Restart) {
			r.Delay = time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "delay"))
			r.Max = r.Delay + time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "max"))
			r.Budget = rapid.IntRange(1, 20).Draw(t, "budget")
			r.Window = time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "window"))
			r.RetryAfter = time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "retry after"))
		})
		var b backoff
		var all []time.Duration
		now := time.Duration(0)
		for range 60 {
			b.started(r, now)
			all = append(all, now)
			up := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "up"))
			now += up
			heir := backoffOf(b.label())
			random := rapid.Float64Range(0, 0.999).Draw(t, "random")
			a := b.fell(r, now, up, random)
			if diff := cmp.Diff(a, heir.fell(r, now, up, random), cmp.AllowUnexported(again{})); diff != "" {
				t.Fatal(diff)
			}
			prompt := a.after == 0 && up >= promptDelays*r.Delay
			if a.spent && a.after < r.RetryAfter || !a.spent && !prompt && a.after < r.Delay && a.after < r.Max {
				t.Fatalf("%+v is too soon", a)
			}
			now += a.after
			within := 1 // the start that comes
			for _, s := range all {
				if s > now-r.Window {
					within++
				}
			}
			if !a.spent && within > r.Budget {
				t.Fatalf("%d starts within %s and not spent", within, r.Window)
			}
		}
	})
}

func TestBriefDurations(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Second: "1m30s", 50 * time.Millisecond: "50ms", 10 * time.Second: "10s"} {
		if got := brief(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}
