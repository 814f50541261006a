package supervisor_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// TestAnythingAtOnceEndsInTheStateThatWasAskedFor asks for random things, several at a time, of real processes under a
// real keeper. Each process takes a lock on its name's file, so that two living at once are caught by the kernel.
func TestAnythingAtOnceEndsInTheStateThatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a.1", "a.2", "b.1"}
		version := make(map[string]string)
		wanted := map[string]bool{"a.1": true, "a.2": true, "b.1": true}
		specs := func() []plan.Spec {
			var all []plan.Spec
			for _, name := range names {
				if !wanted[name] {
					continue
				}
				s := w.sleeper(name)
				s.Env = append(s.Env, "VERSION="+version[name])
				s.Restart.Reset = 1 // every crash is followed by the shortest delay
				if name == "b.1" {
					s.Needs = []plan.Need{{Service: "a", Condition: plan.Started}}
				}
				all = append(all, s)
			}
			return all
		}
		v.apply(t, specs()...)

		var wg sync.WaitGroup
		var mu sync.Mutex
		var hung []error
		answered := func(call func(context.Context) error) {
			wg.Go(func() {
				ctx, cancel := patient()
				defer cancel()
				// Errors are answers: somebody else asked for the opposite, or it was killed on the way.
				if err := call(ctx); err != nil && ctx.Err() != nil {
					mu.Lock()
					defer mu.Unlock()
					hung = append(hung, err)
				}
			})
		}
		for range rapid.IntRange(1, 12).Draw(t, "operations") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			target := rapid.SampledFrom([]string{name, name, name[:1]}).Draw(t, "target")
			switch rapid.SampledFrom([]string{"stop", "restart", "kill", "exit", "change", "remove", "wait"}).Draw(t, "operation") {
			case "stop":
				answered(func(ctx context.Context) error { return v.Stop(ctx, target) })
			case "restart":
				// A restart of b waits for a, which may be stopped for good: only a is sure to get ready.
				answered(func(ctx context.Context) error { return v.Restart(ctx, "a") })
			case "kill":
				answered(func(ctx context.Context) error { return w.client.Signal(ctx, name, syscall.SIGKILL, false) })
			case "exit":
				answered(func(ctx context.Context) error { return w.client.Signal(ctx, name, syscall.SIGUSR2, false) })
			case "change":
				version[name] = rapid.StringMatching(`[a-z]{8}`).Draw(t, "version")
				now := specs()
				answered(func(ctx context.Context) error { _, err := v.Apply(ctx, now); return err })
			case "remove":
				wanted[name] = rapid.Bool().Draw(t, "wanted")
				now := specs()
				answered(func(ctx context.Context) error { _, err := v.Apply(ctx, now); return err })
			case "wait":
				wg.Wait()
			}
		}
		wg.Wait()
		if len(hung) > 0 {
			t.Fatalf("no answer: %v; %s", errors.Join(hung...), v.summary())
		}

		// The last word, one after the other: what it says must hold.
		wanted = map[string]bool{"a.1": true, "a.2": true, "b.1": rapid.Bool().Draw(t, "b at last")}
		final := specs()
		v.apply(t, final...)
		ctx, cancel := patient()
		defer cancel()
		stopped := rapid.SampledFrom([]string{"", "a.1", "a.2", "b.1"}).Draw(t, "stopped at last")
		for _, s := range final {
			if err := v.Start(ctx, s.Name); err != nil {
				// A process that is killed before it handles TERM, or a kill that arrives late, counts as a crash.
				v.await(t, status.Ready, s.Name)
			}
		}
		v.awaitVersions(t, w, final)
		if stopped != "" && slices.ContainsFunc(final, func(s plan.Spec) bool { return s.Name == stopped }) {
			must(t, v.Stop(ctx, stopped))
		}
		all := v.Instances()
		if len(all) != len(final) {
			t.Fatalf("there are %s", v.summary())
		}
		for i, s := range final {
			want := status.Ready
			if s.Name == stopped {
				want = status.Stopped
			}
			if all[i].Name != s.Name {
				t.Fatalf("not in order: %s", v.summary())
			}
			v.await(t, want, s.Name) // a signal of before may still be on its way
		}
		if content, err := os.ReadFile(w.path("DOUBLE")); err == nil {
			t.Fatalf("two processes lived at once under %s", content)
		}
	})
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
