package plan_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/hozo-dev/hozo/internal/plan"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func spec(name string, argv ...string) plan.Spec {
	service, _, _ := strings.Cut(name, ".")
	return plan.Spec{Name: name, Service: service, Argv: argv}
}

func have(s plan.Spec, running bool) plan.Have {
	return plan.Have{Name: s.Name, Hash: s.Hash(), Hot: s.HotHash(), Running: running, Cold: s.Cold(), HotWas: s.Hot()}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	a, b, c := spec("a.1", "/bin/a"), spec("b.1", "/bin/b"), spec("c.1", "/bin/c")
	changed := spec("b.1", "/bin/b", "-v")
	hot := b
	hot.Restart.Delay = time.Second
	healthy := b
	healthy.Health = &plan.Health{HTTP: "http://127.0.0.1/healthz"}
	unknown := have(b, true)
	unknown.Hot = ""
	for name, test := range map[string]struct {
		want []plan.Spec
		have []plan.Have
	}{
		"nothing":         {},
		"first":           {want: []plan.Spec{a, b, c}},
		"same":            {want: []plan.Spec{a, b}, have: []plan.Have{have(b, true), have(a, false)}},
		"mixed":           {want: []plan.Spec{c, changed}, have: []plan.Have{have(b, true), have(a, true)}},
		"changed-stopped": {want: []plan.Spec{changed}, have: []plan.Have{have(b, false)}},
		"hot":             {want: []plan.Spec{hot}, have: []plan.Have{have(b, true)}},
		"env":             {want: []plan.Spec{withEnv(b, "A=2", "B=1")}, have: []plan.Have{have(withEnv(b, "A=1", "B=1", "SECRET=hunter2"), true)}},
		"parts-unknown":   {want: []plan.Spec{changed}, have: []plan.Have{{Name: "b.1", Hash: b.Hash(), Running: true}}},
		"stays-stopped":   {want: []plan.Spec{changed}, have: []plan.Have{{Name: "b.1", Hash: b.Hash(), Cold: b.Cold(), Stopped: true}}},
		"many-keys":       {want: []plan.Spec{healthy}, have: []plan.Have{have(b, true)}},
		"hot-unknown":     {want: []plan.Spec{hot}, have: []plan.Have{unknown}},
		"all-gone":        {have: []plan.Have{have(c, true), have(a, false)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, name, plan.Format(plan.Diff(test.want, test.have)))
		})
	}
}

func withEnv(s plan.Spec, env ...string) plan.Spec {
	s.Env = env
	return s
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// Whatever is there, doing what Diff says leads to what is wanted, and then there is nothing left to do.
func TestStepsLeadToWhatIsWanted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a.1", "a.2", "b.1", "c.1"}
		pick := func(label string) map[string]plan.Spec {
			picked := make(map[string]plan.Spec)
			for _, n := range names {
				if rapid.Bool().Draw(t, label+n) {
					picked[n] = spec(n, "/bin/x", rapid.SampledFrom([]string{"1", "2"}).Draw(t, label+"argv"+n))
				}
			}
			return picked
		}
		wanted, old := pick("want"), pick("have")
		var want []plan.Spec
		state := make(map[string]plan.Have)
		var haves []plan.Have
		for _, n := range names {
			if s, ok := wanted[n]; ok {
				want = append(want, s)
			}
			if s, ok := old[n]; ok {
				state[n] = have(s, rapid.Bool().Draw(t, "runs"+n))
				haves = append(haves, state[n])
			}
		}
		for _, step := range plan.Diff(want, haves) {
			if step.Op == plan.OpStop {
				delete(state, step.Name)
				continue
			}
			state[step.Name] = have(wanted[step.Name], true)
		}
		if len(state) != len(want) {
			t.Fatalf("%d instances are left, %d are wanted", len(state), len(want))
		}
		haves = nil
		for _, h := range state {
			haves = append(haves, h)
		}
		if steps := plan.Diff(want, haves); len(steps) > 0 {
			t.Fatalf("still to do: %v", steps)
		}
	})
}
