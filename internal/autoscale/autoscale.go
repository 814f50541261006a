// Package autoscale decides how many instances a service should have. It is pure: it reads no clock and no process, and
// what it is told and what it remembers are values, so that a day of a service plays in a test in no time.
//
// A service grows when what is measured has been above its target for a while and shrinks when it has been below for a
// longer while. Between the two lies a band in which nothing happens, wide enough that the step from one number of
// instances to the next never leads across it: a constant signal moves a service at most in one direction.
package autoscale

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// What a Policy looks at; the words are the manifest's.
const (
	OnLag      = "lag"      // messages of its streams that are not done
	OnTaskAge  = "task_age" // age in seconds of the oldest task that is not done
	OnCPU      = "cpu"      // CPU cores that it uses
	OnRequests = "requests" // HTTP requests in flight
)

const (
	// above and below are the edges of the band, as shares of the target. To grow takes a tenth too much; to shrink, one
	// instance fewer must still have a fifth of its share to spare.
	above = 1.1
	below = 0.8
	// calmAge is the share of the target age below which tasks wait so shortly that fewer workers may do.
	calmAge = 0.5
	// fullest is how busy the instances that remain may be: those that have no backlog because they only just keep up
	// are all needed.
	fullest = 0.7
	// leastCores is what an instance counts for at least: one that waits for others costs memory and wakeups.
	leastCores = 0.05
)

// Policy is how one service is scaled.
type Policy struct {
	Min, Max    int
	On          string  // OnLag, OnTaskAge, OnCPU or OnRequests
	Target      float64 // of what On says: an instance's share, for OnTaskAge the oldest age
	GrowAfter   time.Duration
	ShrinkAfter time.Duration
}

// Signal is what is known of one service at one moment.
type Signal struct {
	Service string
	Policy  Policy
	Wanted  int     // instances that are wanted now
	Ready   int     // of them, how many can work
	Known   bool    // Value was measured
	Value   float64 // of what On says, of all instances together
	Busy    float64 // mean share of time in which the instances had no idle worker, 0 to 1; negative when unknown
	Cores   float64 // CPU cores that the service uses
}

// Budget bounds what all services may use together. It keeps services from growing; nothing is taken away for it.
type Budget struct {
	Cores float64 // that automatic scaling may fill
	Used  float64 // by the whole project now
}

// Verdict is what a service should have, and why. To equals From when nothing is to change.
type Verdict struct {
	Service  string
	From, To int
	Reason   string
}

// Trend is what is remembered of one service between two decisions. The zero Trend remembers nothing.
type Trend struct {
	AboveSince time.Time // zero when it is not above
	BelowSince time.Time // zero when it is not below
	Most       int       // the most instances that seemed enough since BelowSince
}

// Decide returns a verdict for each signal, in their order, and what to remember for the next decision. Services that
// need to grow most are given their part of the budget first.
func Decide(now time.Time, budget Budget, trends map[string]Trend, signals []Signal) ([]Verdict, map[string]Trend) {
	order := make([]int, len(signals))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(pressure(signals[b]), pressure(signals[a])), cmp.Compare(signals[a].Service, signals[b].Service))
	})
	verdicts, next := make([]Verdict, len(signals)), make(map[string]Trend, len(signals))
	for _, i := range order {
		s := signals[i]
		v, t := decide(now, budget, trends[s.Service], s)
		budget.Used += float64(max(0, v.To-v.From)) * weight(s)
		verdicts[i], next[s.Service] = v, t
	}
	return verdicts, next
}

func decide(now time.Time, budget Budget, t Trend, s Signal) (Verdict, Trend) {
	p, n := s.Policy, s.Wanted
	verdict := func(to int, format string, args ...any) Verdict {
		return Verdict{s.Service, n, to, fmt.Sprintf(format, args...)}
	}
	switch {
	case n < p.Min:
		return verdict(p.Min, "at least %d", p.Min), Trend{}
	case n > p.Max:
		return verdict(p.Max, "at most %d", p.Max), Trend{}
	case !s.Known:
		return verdict(n, "%s is not known yet", words(p.On)), Trend{}
	}
	measured := describe(s)
	if to := grown(s); to > n {
		t.BelowSince, t.Most = time.Time{}, 0
		if t.AboveSince.IsZero() {
			t.AboveSince = now
		}
		switch {
		case n == p.Max:
			return verdict(n, "%s; %d is the most", measured, p.Max), t
		case s.Ready < n:
			return verdict(n, "%s; %d of %d instances are ready yet", measured, s.Ready, n), t
		case now.Sub(t.AboveSince) < p.GrowAfter:
			return verdict(n, "%s; grows when that lasts %s", measured, p.GrowAfter), t
		}
		most := n + int(math.Floor((budget.Cores-budget.Used)/weight(s)+1e-9))
		if most <= n {
			return verdict(n, "%s; %.1f of the budget of %g cores are in use", measured, budget.Used, budget.Cores), t
		}
		return verdict(min(to, most, p.Max), "%s", measured), Trend{}
	}
	t.AboveSince = time.Time{}
	to := shrunk(s)
	if to >= n {
		t.BelowSince, t.Most = time.Time{}, 0
		return verdict(n, "%s", measured), t
	}
	if t.BelowSince.IsZero() {
		t.BelowSince, t.Most = now, to
	}
	t.Most = max(t.Most, to) // a dip within the window does not count
	if now.Sub(t.BelowSince) < p.ShrinkAfter {
		return verdict(n, "%s; shrinks when that lasts %s", measured, p.ShrinkAfter), t
	}
	return verdict(t.Most, "%s", measured), Trend{}
}

// grown is how many instances the signal asks for, at most twice as many as there are; the present number when none.
func grown(s Signal) int {
	n, p := s.Wanted, s.Policy
	want := n
	switch {
	case p.On == OnTaskAge && s.Value > p.Target*above:
		want = 2 * n
	case p.On != OnTaskAge && s.Value > float64(n)*p.Target*above:
		want = int(math.Min(math.Ceil(s.Value/p.Target), 2*float64(n)))
	}
	// At the most it is still above, which the reason says.
	return max(n, want)
}

// shrunk is how few instances would do, at least half of those that there are; the present number when all are needed.
func shrunk(s Signal) int {
	n, p := s.Wanted, s.Policy
	few := n
	switch {
	case p.On == OnTaskAge && s.Value < p.Target*calmAge:
		few = n - 1
	case p.On != OnTaskAge && s.Value < float64(n-1)*p.Target*below:
		few = int(math.Ceil(s.Value / (p.Target * below)))
	}
	few = max(few, (n+1)/2, p.Min)
	if (p.On == OnLag || p.On == OnTaskAge) && s.Busy >= 0 {
		few = max(few, int(math.Ceil(s.Busy*float64(n)/fullest-1e-9)))
	}
	return min(n, few)
}

// pressure is how many times over its target a service is.
func pressure(s Signal) float64 {
	if !s.Known || s.Policy.Target <= 0 {
		return 0
	}
	if s.Policy.On == OnTaskAge {
		return s.Value / s.Policy.Target
	}
	return s.Value / (s.Policy.Target * float64(max(1, s.Wanted)))
}

// weight is how many cores one more instance will use: as many as one uses now.
func weight(s Signal) float64 { return max(leastCores, s.Cores/float64(max(1, s.Wanted))) }

func words(on string) string {
	switch on {
	case OnLag:
		return "the lag"
	case OnTaskAge:
		return "the age of the oldest task"
	case OnCPU:
		return "the use of CPU"
	default:
		return "the number of requests in flight"
	}
}

// describe says what was measured beside what is meant: "lag 812, 64 an instance".
func describe(s Signal) string {
	switch t := s.Policy.Target; s.Policy.On {
	case OnTaskAge:
		return fmt.Sprintf("oldest task %s, target %s", seconds(s.Value), seconds(t))
	case OnCPU:
		return fmt.Sprintf("%.2f cores, %g an instance", s.Value, t)
	case OnRequests:
		return fmt.Sprintf("%.1f requests in flight, %g an instance", s.Value, t)
	default:
		return fmt.Sprintf("lag %.0f, %g an instance", s.Value, t)
	}
}

func seconds(v float64) time.Duration {
	return time.Duration(v * float64(time.Second)).Round(100 * time.Millisecond)
}
