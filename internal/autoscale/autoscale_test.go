package autoscale_test

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/hozo-dev/hozo/internal/autoscale"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Unix(1_000_000, 0)

func policy(on string) autoscale.Policy {
	targets := map[string]float64{autoscale.OnLag: 64, autoscale.OnTaskAge: 10, autoscale.OnCPU: 0.7, autoscale.OnRequests: 20}
	return autoscale.Policy{Min: 1, Max: 8, On: on, Target: targets[on], GrowAfter: 3 * time.Second, ShrinkAfter: time.Minute}
}

// last decides once a second for as long as lasts and returns the last verdict.
func last(s autoscale.Signal, budget autoscale.Budget, lasts time.Duration) autoscale.Verdict {
	var trends map[string]autoscale.Trend
	var all []autoscale.Verdict
	for at := time.Duration(0); at <= lasts; at += time.Second {
		all, trends = autoscale.Decide(start.Add(at), budget, trends, []autoscale.Signal{s})
		if all[0].To != all[0].From {
			break
		}
	}
	return all[0]
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	signal := func(on string, wanted int, value float64) autoscale.Signal {
		return autoscale.Signal{Service: "a", Policy: policy(on), Wanted: wanted, Ready: wanted, Known: true, Value: value, Busy: -1, Cores: 0.1}
	}
	with := func(s autoscale.Signal, change func(*autoscale.Signal)) autoscale.Signal {
		change(&s)
		return s
	}
	for name, test := range map[string]struct {
		signal autoscale.Signal
		budget float64
		lasts  time.Duration
		to     int
		reason string
	}{
		"a burst grows as much as it takes":     {signal(autoscale.OnLag, 2, 200), 9, 3 * time.Second, 4, "lag 200, 64 an instance"},
		"at most twice at a time":               {signal(autoscale.OnLag, 2, 5000), 9, 3 * time.Second, 4, "lag 5000"},
		"not beyond max":                        {signal(autoscale.OnLag, 8, 5000), 9, time.Hour, 8, "8 is the most"},
		"to max at most":                        {signal(autoscale.OnLag, 5, 5000), 9, time.Hour, 8, ""},
		"not at once":                           {signal(autoscale.OnLag, 2, 5000), 9, 2 * time.Second, 2, "grows when that lasts 3s"},
		"a little over the target is nothing":   {signal(autoscale.OnLag, 2, 2*64*1.09), 9, time.Hour, 2, ""},
		"not before the last ones are ready":    {with(signal(autoscale.OnLag, 2, 5000), func(s *autoscale.Signal) { s.Ready = 1 }), 9, time.Hour, 2, "1 of 2 instances are ready yet"},
		"idle shrinks":                          {signal(autoscale.OnLag, 4, 0), 9, time.Minute, 2, "lag 0"},
		"not soon":                              {signal(autoscale.OnLag, 4, 0), 9, 59 * time.Second, 4, "shrinks when that lasts 1m0s"},
		"to min and not below":                  {signal(autoscale.OnLag, 1, 0), 9, time.Hour, 1, ""},
		"no backlog but all hands full":         {with(signal(autoscale.OnLag, 4, 0), func(s *autoscale.Signal) { s.Busy = 0.9 }), 9, time.Hour, 4, ""},
		"no backlog and half of them busy":      {with(signal(autoscale.OnLag, 4, 0), func(s *autoscale.Signal) { s.Busy = 0.5 }), 9, time.Hour, 3, ""},
		"old tasks double":                      {signal(autoscale.OnTaskAge, 2, 30), 9, time.Hour, 4, "oldest task 30s, target 10s"},
		"young tasks give one back":             {signal(autoscale.OnTaskAge, 4, 1), 9, time.Hour, 3, "oldest task 1s"},
		"tasks of some age stay":                {signal(autoscale.OnTaskAge, 4, 7), 9, time.Hour, 4, ""},
		"cpu":                                   {signal(autoscale.OnCPU, 2, 2.0), 9, time.Hour, 3, "2.00 cores, 0.7 an instance"},
		"requests":                              {signal(autoscale.OnRequests, 1, 39), 9, time.Hour, 2, "39.0 requests in flight, 20 an instance"},
		"unknown":                               {with(signal(autoscale.OnRequests, 3, 0), func(s *autoscale.Signal) { s.Known = false }), 9, time.Hour, 3, "not known"},
		"below min":                             {with(signal(autoscale.OnLag, 1, 0), func(s *autoscale.Signal) { s.Policy.Min = 3 }), 0, 0, 3, "at least 3"},
		"above max":                             {with(signal(autoscale.OnLag, 9, 5000), func(s *autoscale.Signal) { s.Policy.Max = 4 }), 9, 0, 4, "at most 4"},
		"the budget is used up":                 {with(signal(autoscale.OnCPU, 2, 1.9), func(s *autoscale.Signal) { s.Cores = 1.9 }), 2.5, time.Hour, 2, "of the budget of 2.5 cores are in use"},
		"the budget allows a part":              {with(signal(autoscale.OnCPU, 2, 6), func(s *autoscale.Signal) { s.Cores = 2 }), 3.1, time.Hour, 3, ""},
		"instances that wait cost next to none": {with(signal(autoscale.OnTaskAge, 4, 99), func(s *autoscale.Signal) { s.Cores = 0 }), 2, time.Hour, 8, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := last(test.signal, autoscale.Budget{Cores: test.budget, Used: test.signal.Cores}, test.lasts)
			if v.To != test.to || !strings.Contains(v.Reason, test.reason) {
				t.Errorf("%d → %d: %s", v.From, v.To, v.Reason)
			}
		})
	}
}

func TestWhoNeedsMostIsServedFirst(t *testing.T) {
	t.Parallel()
	signals := []autoscale.Signal{
		{Service: "a", Policy: policy(autoscale.OnLag), Wanted: 1, Ready: 1, Known: true, Value: 100, Cores: 1},
		{Service: "b", Policy: policy(autoscale.OnLag), Wanted: 1, Ready: 1, Known: true, Value: 1000, Cores: 1},
	}
	for i := range signals {
		signals[i].Policy.GrowAfter = 0
	}
	v, _ := autoscale.Decide(start, autoscale.Budget{Cores: 3, Used: 2}, nil, signals)
	if v[0].To != 1 || v[1].To != 2 {
		t.Errorf("verdicts: %+v", v)
	}
}

func draw(t *rapid.T) autoscale.Signal {
	p := policy(rapid.SampledFrom([]string{autoscale.OnLag, autoscale.OnTaskAge, autoscale.OnCPU, autoscale.OnRequests}).Draw(t, "on"))
	p.Min = rapid.IntRange(1, 10).Draw(t, "min")
	p.Max = p.Min + rapid.IntRange(0, 40).Draw(t, "more")
	p.Target = rapid.Float64Range(0.01, 100).Draw(t, "target")
	p.GrowAfter = time.Duration(rapid.IntRange(0, 5).Draw(t, "grow after")) * time.Second
	p.ShrinkAfter = time.Duration(rapid.IntRange(1, 20).Draw(t, "shrink after")) * time.Second
	n := rapid.IntRange(1, 60).Draw(t, "wanted")
	return autoscale.Signal{
		Service: "a", Policy: p, Wanted: n, Ready: n, Known: true,
		Value: rapid.Float64Range(0, 5000).Draw(t, "value"), Busy: rapid.Float64Range(-1, 1).Draw(t, "busy"), Cores: rapid.Float64Range(0, 4).Draw(t, "cores"),
	}
}

// A signal that does not change moves a service in one direction at most, and then it rests.
func TestConstantSignalDoesNotFlap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		s.Wanted = min(max(s.Wanted, s.Policy.Min), s.Policy.Max)
		if s.Busy >= 0 {
			s.Busy = 0 // it changes with the number of instances, so it cannot be constant
		}
		budget := autoscale.Budget{Cores: rapid.Float64Range(0, 100).Draw(t, "budget"), Used: s.Cores}
		trends := map[string]autoscale.Trend{}
		var up, down, changed int
		for i := range 1200 {
			var v []autoscale.Verdict
			s.Ready = s.Wanted
			v, trends = autoscale.Decide(start.Add(time.Duration(i)*time.Second), budget, trends, []autoscale.Signal{s})
			if v[0].To > s.Wanted {
				up++
				changed = i
			}
			if v[0].To < s.Wanted {
				down++
				changed = i
			}
			s.Wanted = v[0].To
		}
		if up > 0 && down > 0 {
			t.Fatalf("it grew %d times and shrank %d times", up, down)
		}
		if changed > 1000 { // the longest way are 40 steps down, one every 20 s, and the window of the first
			t.Fatal("it never rests")
		}
	})
}

// Whatever is measured, the number stays within its bounds and moves by bounded steps; the budget holds back growth alone.
func TestStepsAreBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		trends := map[string]autoscale.Trend{}
		for i := range rapid.IntRange(1, 60).Draw(t, "seconds") {
			s.Value = rapid.Float64Range(0, 5000).Draw(t, "value")
			s.Busy = rapid.Float64Range(-1, 1).Draw(t, "busy")
			s.Known = rapid.Bool().Draw(t, "known")
			s.Ready = rapid.IntRange(0, s.Wanted).Draw(t, "ready")
			budget := autoscale.Budget{Cores: rapid.Float64Range(0, 8).Draw(t, "cores"), Used: rapid.Float64Range(0, 8).Draw(t, "used")}
			var v []autoscale.Verdict
			v, trends = autoscale.Decide(start.Add(time.Duration(i)*time.Second), budget, trends, []autoscale.Signal{s})
			n, to, p := s.Wanted, v[0].To, s.Policy
			switch {
			case to < p.Min || to > p.Max:
				t.Fatalf("%d is outside %d and %d", to, p.Min, p.Max)
			case n < p.Min && to != p.Min || n > p.Max && to != p.Max:
				t.Fatalf("%d → %d does not bring it into its bounds at once", n, to)
			case n >= p.Min && n <= p.Max && (to > 2*n || to < (n+1)/2):
				t.Fatalf("%d → %d is too large a step", n, to)
			case to > n && n >= p.Min && (budget.Used >= budget.Cores || s.Ready < n || !s.Known):
				t.Fatalf("%d → %d though the budget is used up, or the last ones are not ready, or nothing is known", n, to)
			case v[0].Reason == "":
				t.Fatal("no reason is given")
			}
			s.Wanted = to
		}
	})
}
