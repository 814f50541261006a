package supervisor_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// 1,000 take ten seconds. For 10,000: go test -race -run Operations -timeout 30m ./internal/supervisor -args -operations 10000
var (
	operations = flag.Int("operations", 1000, "random operations on real processes")
	seed       = flag.Uint64("seed", 0, "of the random operations; 0 draws one")
)

const (
	together = 6  // operations in flight
	round    = 40 // operations between two looks at what came of them
)

// TestRandomOperationsNeverWedgeNorDouble asks for random things, several at a time, of real processes under a real
// keeper: starts, stops, restarts, kills, exits, changes, removals, and ends of the supervisor itself, which the next
// one adopts from. Every call must be answered. After each round the model says what must run, and as what. Each
// process takes a lock on its name's file, so that two living at once are caught by the kernel.
func TestRandomOperationsNeverWedgeNorDouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newModel(t, w)
	for done := 0; done < *operations; done += round {
		m.play(t, min(round, *operations-done))
		m.settle(t)
	}
	m.report(t)
}

// model is what is wanted of a world, and the supervisor that is to bring it about.
type model struct {
	w       *world
	program string
	random  *rand.Rand

	mu      sync.RWMutex // held for writing while the supervisor is replaced
	v       *watched
	names   []string
	wanted  map[string]bool
	version map[string]int

	answers sync.Mutex // guards took
	took    map[string][]time.Duration
	hung    []string
}

func newModel(t *testing.T, w *world) *model {
	t.Helper()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	program := w.path("sleeper")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/sleeper").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := &model{
		w: w, program: program, random: rand.New(rand.NewPCG(*seed, 0)),
		names:   []string{"a.1", "a.2", "b.1", "c.1", "d.1"},
		wanted:  map[string]bool{},
		version: map[string]int{},
		took:    map[string][]time.Duration{},
	}
	for _, name := range m.names {
		m.wanted[name] = true
	}
	m.v = w.supervise(t)
	m.v.apply(t, m.specs()...)
	return m
}

// specs are the instances as they are wanted: b needs a, c needs b and starts again after it, d is alone.
func (m *model) specs() []plan.Spec {
	var all []plan.Spec
	for _, name := range m.names {
		if !m.wanted[name] {
			continue
		}
		s := m.w.spec(name, "")
		s.Argv = []string{m.program, m.w.path(name + ".lock")}
		s.Env = []string{fmt.Sprintf("VERSION=%d", m.version[name])}
		s.Restart = plan.Restart{Delay: time.Millisecond, Max: 20 * time.Millisecond, Reset: time.Nanosecond, Budget: 1000, Window: time.Second}
		switch name {
		case "b.1":
			s.Needs = []plan.Need{{Service: "a", Condition: plan.Started}}
		case "c.1":
			s.Needs = []plan.Need{{Service: "b", Restart: true}}
		}
		all = append(all, s)
	}
	return all
}

// play carries out n random operations and waits for their answers.
func (m *model) play(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, together)
	call := func(kind string, f func(context.Context, *watched) error) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			m.answered(kind, f)
		})
	}
	for range n {
		name := m.names[m.random.IntN(len(m.names))]
		target := []string{name, name[:1]}[m.random.IntN(2)]
		switch kind := []string{"start", "stop", "restart", "kill", "exit", "change", "remove", "end"}[m.random.IntN(8)]; kind {
		case "start":
			// What it needs may be stopped for good: then it waits, which is an answer only to whoever stops waiting.
			call(kind, func(ctx context.Context, v *watched) error { return bounded(ctx, v.Start, target) })
		case "stop":
			call(kind, func(ctx context.Context, v *watched) error { return v.Stop(ctx, target) })
		case "restart":
			call(kind, func(ctx context.Context, v *watched) error { return bounded(ctx, v.Restart, target) })
		case "kill":
			call(kind, func(ctx context.Context, _ *watched) error {
				return m.w.client.Signal(ctx, name, syscall.SIGKILL, false)
			})
		case "exit":
			call(kind, func(ctx context.Context, _ *watched) error {
				return m.w.client.Signal(ctx, name, syscall.SIGUSR2, false)
			})
		case "change", "remove":
			if kind == "change" {
				m.version[name]++
			} else {
				m.wanted[name] = !m.wanted[name] || name == "a.1"
			}
			specs := m.specs()
			call(kind, func(ctx context.Context, v *watched) error { _, err := v.Apply(ctx, specs); return err })
		case "end":
			specs := m.specs()
			began := time.Now()
			m.mu.Lock() // whoever waits for the old one is answered by its end
			m.v.stop()
			m.v = m.w.supervise(t)
			m.v.apply(t, specs...)
			m.mu.Unlock()
			m.note(kind, time.Since(began))
		}
	}
	wg.Wait()
	if len(m.hung) > 0 {
		t.Fatalf("no answer: %v; %s", m.hung, m.v.summary())
	}
}

// bounded gives up waiting for what may never come to pass; the command itself was taken, or the error says otherwise.
func bounded(ctx context.Context, call func(context.Context, string) error, target string) error {
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	return call(short, target)
}

// answered makes a call and notes how long its answer took. Errors are answers: somebody else asked for the opposite,
// it was killed on the way, or the supervisor has ended.
func (m *model) answered(kind string, f func(context.Context, *watched) error) {
	m.mu.RLock()
	v := m.v
	m.mu.RUnlock()
	ctx, cancel := patient()
	defer cancel()
	began := time.Now()
	err := f(ctx, v)
	m.note(kind, time.Since(began))
	if err != nil && ctx.Err() != nil {
		m.answers.Lock()
		defer m.answers.Unlock()
		m.hung = append(m.hung, fmt.Sprintf("%s: %v", kind, err))
	}
}

func (m *model) note(kind string, took time.Duration) {
	m.answers.Lock()
	defer m.answers.Unlock()
	m.took[kind] = append(m.took[kind], took)
}

// settle has the last word, one call after the other: what it says must hold.
func (m *model) settle(t *testing.T) {
	t.Helper()
	for _, name := range m.names {
		m.wanted[name] = m.wanted[name] || name == "a.2" || name == "b.1" // c needs it
	}
	final := m.specs()
	m.v.apply(t, final...)
	ctx, cancel := patient()
	defer cancel()
	for _, s := range final {
		began := time.Now()
		if err := m.v.Start(ctx, s.Name); err != nil && ctx.Err() != nil {
			t.Fatalf("start %s: %v; %s", s.Name, err, m.v.summary())
		}
		m.note("start at last", time.Since(began))
	}
	m.v.awaitVersions(t, m.w, final)
	if m.wanted["d.1"] && m.random.IntN(2) == 0 {
		began := time.Now()
		must(t, m.v.Stop(ctx, "d.1"))
		m.note("stop at last", time.Since(began))
		m.v.await(t, status.Stopped, "d.1")
	}
	if all := m.v.Instances(); len(all) != len(final) {
		t.Fatalf("%d instances are wanted, there are %s", len(final), m.v.summary())
	}
	if content, err := os.ReadFile(m.w.path("DOUBLE")); err == nil {
		t.Fatalf("two processes lived at once under %s", content)
	}
}

// report says how long answers took. That they came at all is what the test asserts.
func (m *model) report(t *testing.T) {
	for _, kind := range slices.Sorted(maps.Keys(m.took)) {
		took := slices.Sorted(slices.Values(m.took[kind]))
		at := func(share float64) time.Duration {
			return took[int(share*float64(len(took)-1))].Round(10 * time.Microsecond)
		}
		t.Logf("%-13s %5d answers: p50 %s, p99 %s, max %s", kind, len(took), at(0.5), at(0.99), at(1))
	}
}

// awaitVersions waits until every instance runs as it is wanted, by the keeper's word.
func (v *watched) awaitVersions(t failer, w *world, specs []plan.Spec) {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	err := v.Wait(ctx, func(all []status.Instance) bool {
		processes, _, err := w.client.List(ctx)
		must(t, err)
		for _, s := range specs {
			running := slices.IndexFunc(processes, func(p keeper.Process) bool {
				return p.Name == s.Name && p.Exit == nil && p.Labels["hash"] == s.Hash()
			})
			ready := slices.ContainsFunc(all, func(i status.Instance) bool {
				return i.Name == s.Name && i.State == status.Ready && running >= 0 && processes[running].PID == i.PID
			})
			if !ready {
				return false
			}
		}
		return true
	})
	if err != nil {
		t.Fatalf("%v; %s", err, v.summary())
	}
}
