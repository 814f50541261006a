package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// surging is an instance of role server that is replaced without a gap. Its gates are version.ready and version.end.
func (w *world) surging(name, version string) plan.Spec {
	s := w.spec(name, "server", w.path(version+".ready"), w.path(name+".terms"), w.path(version+".end"))
	s.Listen = []plan.Listen{{Name: "http", Network: "tcp", Address: "127.0.0.1:0"}}
	s.Health = &plan.Health{Notify: true, Grace: patience}
	s.Notify = true
	s.Stop.Grace = patience
	s.Rolling = plan.Rolling{Surge: 1, Timeout: patience}
	return s
}

// processes of the keeper that live, by name.
func (w *world) living(t failer) map[string]int {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	all, _, err := w.client.List(ctx)
	must(t, err)
	living := make(map[string]int)
	for _, p := range all {
		if p.Exit == nil {
			living[p.Name] = p.PID
		}
	}
	return living
}

func (v *watched) awaitChange(t failer, change status.Change, name string) status.Instance {
	t.Helper()
	return v.awaitThat(t, "change "+string(change), func(i status.Instance) bool { return i.Change == change && i.State == status.Ready }, name)
}

func TestSurgeStartsTheNewProcessBesideTheOldOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	w.open(t, "v1.ready")
	v.apply(t, w.surging("a.1", "v1"))
	old := v.await(t, status.Ready, "a.1")

	v.apply(t, w.surging("a.1", "v2"))
	i := v.awaitChange(t, status.ChangeStarting, "a.1")
	if i.PID != old.PID || i.NextPID == 0 || i.NextPID == old.PID {
		t.Errorf("%+v", i)
	}
	if living := w.living(t); living["a.1"] != old.PID || living["a.1+"] != i.NextPID {
		t.Errorf("there live %v", living)
	}
	w.open(t, "v2.ready")
	now := v.awaitChange(t, status.ChangeDraining, "a.1")
	if now.PID != i.NextPID || now.NextPID != old.PID || !alive(old.PID) || !now.Since.After(old.Since) {
		t.Errorf("%+v", now)
	}
	appears(t, w.path("a.1.terms"))
	w.open(t, "v1.end")
	v.awaitChange(t, "", "a.1")
	if living := w.living(t); len(living) != 1 || living["a.1+"] != now.PID {
		t.Errorf("there live %v", living)
	}

	// The names take turns, and a restart is a replacement like any other.
	w.open(t, "v2.end")
	ctx, cancel := patient()
	defer cancel()
	must(t, v.Restart(ctx, "a"))
	if living := w.living(t); len(living) != 1 || living["a.1"] == 0 || living["a.1"] != v.get(t, "a.1").PID {
		t.Errorf("there live %v; %s", living, v.summary())
	}
	if i := v.get(t, "a.1"); i.Change != "" || i.Restarts != 0 {
		t.Errorf("%+v", i)
	}
	// A crash is repaired under the name that it had.
	must(t, v.Restart(ctx, "a"))
	must(t, syscall.Kill(v.get(t, "a.1").PID, syscall.SIGKILL))
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.State == status.Ready && i.Restarts == 1 }, "a.1")
	if living := w.living(t); len(living) != 1 || living["a.1+"] == 0 {
		t.Errorf("there live %v", living)
	}
	must(t, v.Stop(ctx, "a"))
	v.apply(t)
	processes, _, err := w.client.List(ctx)
	must(t, err)
	if len(processes) > 0 {
		t.Errorf("the keeper still has %v", processes)
	}
}

func TestBadVersionIsGivenUpAndTheOldOneRunsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	names := []string{"a.1", "a.2", "a.3"}
	version := func(change func(*plan.Spec)) []plan.Spec {
		var specs []plan.Spec
		for _, name := range names {
			s := w.surging(name, "v1")
			s.Restart.Delay, s.Restart.Max = time.Millisecond, time.Millisecond
			if change != nil {
				change(&s)
			}
			specs = append(specs, s)
		}
		return specs
	}
	w.open(t, "v1.ready")
	w.open(t, "v1.end")
	v.apply(t, version(nil)...)
	v.await(t, status.Ready, names...)
	before := v.pids()
	ctx, cancel := patient()
	defer cancel()
	for what, change := range map[string]struct {
		how    func(*plan.Spec)
		reason string
	}{
		"crashes":        {func(s *plan.Spec) { s.Argv = []string{w.self, "exit", "7"} }, "exit status 7"},
		"is never ready": {func(s *plan.Spec) { s.Argv[2] = w.path("never"); s.Rolling.Timeout = 100 * time.Millisecond }, "not ready within 100ms"},
		"is not there":   {func(s *plan.Spec) { s.Argv = []string{w.path("nosuch")} }, "nosuch"},
		"ignores its end": {func(s *plan.Spec) {
			s.Argv = []string{w.self, "stubborn", ""}
			s.Rolling.Timeout, s.Stop.Grace = 50*time.Millisecond, 50*time.Millisecond
		}, "not ready"},
	} {
		v.apply(t, version(change.how)...)
		i := v.awaitChange(t, status.ChangeFailed, "a.1")
		if !strings.Contains(i.ChangeReason, change.reason) {
			t.Errorf("%s: %+v", what, i)
		}
		// Told by a restart as well, which tries it again.
		if err := v.Restart(ctx, "a"); fault.Code(err) != "supervisor/not-replaced" || !strings.Contains(err.Error(), change.reason) {
			t.Errorf("%s: restart says %v", what, err)
		}
		v.awaitThat(t, "alone", func(i status.Instance) bool { return i.NextPID == 0 }, names...)
		if now := v.pids(); now["a.1"] != before["a.1"] || now["a.2"] != before["a.2"] || now["a.3"] != before["a.3"] {
			t.Errorf("%s: before %v, now %v", what, before, now)
		}
		// An adjustment, such as a scaling, does not try it again.
		if _, err := v.Adjust(ctx, version(change.how)); err != nil {
			t.Errorf("%s: adjust says %v", what, err)
		}
		if i := v.get(t, "a.1"); i.Change != status.ChangeFailed || i.NextPID != 0 {
			t.Errorf("%s: after an adjustment: %+v", what, i)
		}
		v.apply(t, version(nil)...)
		if i := v.awaitChange(t, "", "a.1"); i.PID != before["a.1"] {
			t.Errorf("%s: taking it back restarts it", what)
		}
	}

	// The old one is what is started when it crashes after the new version was given up.
	v.apply(t, version(func(s *plan.Spec) { s.Argv = []string{w.self, "exit", "7"} })...)
	v.awaitChange(t, status.ChangeFailed, "a.1")
	must(t, syscall.Kill(before["a.1"], syscall.SIGKILL))
	i := v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before["a.1"] }, "a.1")
	if i.Change != status.ChangeFailed || i.Restarts != 1 {
		t.Errorf("%+v", i)
	}
}

// Both processes inherit one socket. The old one answers that all is well, which must not count for the new one.
func TestReadinessOfANewProcessIsItsOwn(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"http", "tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.supervise(t)
			version := func(name string) plan.Spec {
				s := w.surging("a.1", name)
				s.Health = &plan.Health{HTTP: "http://127.0.0.1:0/healthz", Interval: 10 * time.Millisecond, Timeout: patience, Grace: patience, Failures: 1 << 20}
				switch network {
				case "unix":
					s.Listen[0].Network, s.Listen[0].Address = "unix", w.path("a.sock")
					s.Health.HTTP, s.Health.Unix = "http://a/healthz", s.Listen[0].Address
				case "tcp":
					s.Health.HTTP, s.Health.TCP = "", s.Listen[0].Address
				}
				return s
			}
			w.open(t, "v1.ready")
			w.open(t, "v1.end")
			v.apply(t, version("v1"))
			old := v.await(t, status.Ready, "a.1")
			deaf := version("v2")
			if network == "tcp" {
				deaf.Argv = []string{w.self, "sleeper", w.path("lock")} // inherits the socket, accepts nothing
			}
			deaf.Rolling.Timeout = 3 * time.Second // a probe must be over by then on a busy machine
			v.apply(t, deaf)
			i := v.awaitChange(t, status.ChangeFailed, "a.1")
			want := "503"
			if network == "tcp" {
				want = "cannot be told"
			}
			if i.PID != old.PID || !strings.Contains(i.ChangeReason, want) {
				t.Errorf("%+v", i)
			}
			w.open(t, "v2.ready")
			w.open(t, "v2.end")
			v.apply(t, version("v2"))
			v.awaitThat(t, "replaced", func(i status.Instance) bool {
				return i.State == status.Ready && i.PID != old.PID && i.Change == ""
			}, "a.1")
		})
	}
}

func TestNextSupervisorGoesOnWithAReplacement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	w.open(t, "v1.ready")
	first.apply(t, w.surging("a.1", "v1"))
	old := first.await(t, status.Ready, "a.1")
	first.apply(t, w.surging("a.1", "v2"))
	starting := first.awaitChange(t, status.ChangeStarting, "a.1")
	first.stop()

	second := w.supervise(t) // while the new one starts
	second.apply(t, w.surging("a.1", "v2"))
	if i := second.awaitChange(t, status.ChangeStarting, "a.1"); i.PID != old.PID || i.NextPID != starting.NextPID {
		t.Errorf("%+v", i)
	}
	w.open(t, "v2.ready")
	second.awaitChange(t, status.ChangeDraining, "a.1")
	appears(t, w.path("a.1.terms"))
	second.stop()

	third := w.supervise(t) // while the old one drains
	third.apply(t, w.surging("a.1", "v2"))
	if i := third.awaitChange(t, status.ChangeDraining, "a.1"); i.PID != starting.NextPID || i.NextPID != old.PID {
		t.Errorf("%+v", i)
	}
	w.open(t, "v1.end")
	third.awaitChange(t, "", "a.1")
	if terms, err := os.ReadFile(w.path("a.1.terms")); err != nil || string(terms) != fmt.Sprintln(old.PID) {
		t.Errorf("it was asked to end more than once, or another one was: %q, %v", terms, err)
	}
	third.stop()

	fourth := w.supervise(t)
	if steps := fourth.apply(t, w.surging("a.1", "v2")); len(steps) > 0 {
		t.Errorf("adopting does %v", steps)
	}
	if i := fourth.await(t, status.Ready, "a.1"); i.PID != starting.NextPID {
		t.Errorf("%+v", i)
	}
	fourth.apply(t, w.surging("a.1", "v3")) // and a successor that is not wanted any more by the next one
	unwanted := fourth.awaitChange(t, status.ChangeStarting, "a.1").NextPID
	fourth.stop()
	w.open(t, "v3.end")
	fifth := w.supervise(t)
	fifth.apply(t, w.surging("a.1", "v2"))
	if i := fifth.awaitChange(t, "", "a.1"); i.PID != starting.NextPID || alive(unwanted) {
		t.Errorf("%+v", i)
	}
	w.open(t, "v2.end")
}

func TestCrashStopAndRemovalDuringAReplacement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	for _, gate := range []string{"v1.ready", "v1.end", "v2.end"} {
		w.open(t, gate)
	}
	v.apply(t, w.surging("a.1", "v1"), w.surging("b.1", "v1"), w.surging("c.1", "v1"))
	v.await(t, status.Ready, "a.1", "b.1", "c.1")
	v.apply(t, w.surging("a.1", "v2"), w.surging("b.1", "v2"), w.surging("c.1", "v2"))
	next := v.awaitChange(t, status.ChangeStarting, "a.1").NextPID
	v.awaitChange(t, status.ChangeStarting, "b.1")
	v.awaitChange(t, status.ChangeStarting, "c.1")
	ctx, cancel := patient()
	defer cancel()

	must(t, syscall.Kill(v.get(t, "a.1").PID, syscall.SIGKILL)) // the new one is all there is now
	if i := v.await(t, status.Starting, "a.1"); i.PID != next || i.Change != "" {
		t.Errorf("%+v", i)
	}
	must(t, v.Stop(ctx, "b"))
	if living := w.living(t); living["b.1"]+living["b.1+"] != 0 {
		t.Errorf("b is stopped and lives: %v", living)
	}
	v.apply(t, w.surging("a.1", "v2"), w.surging("b.1", "v2"))
	if living := w.living(t); living["c.1"]+living["c.1+"] != 0 {
		t.Errorf("c is not wanted and lives: %v", living)
	}
	w.open(t, "v2.ready")
	v.await(t, status.Ready, "a.1")
	must(t, v.Start(ctx, "b"))
	must(t, v.StopAll(ctx))
	if living := w.living(t); len(living) > 0 {
		t.Errorf("all are stopped and there live %v", living)
	}
}

// calls are made at the same time and must all be answered.
type calls struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	hung []error
}

// answered calls in the background. Errors are answers: somebody else asked for the opposite, or it was killed.
func (c *calls) answered(call func(context.Context) error) {
	c.wg.Go(func() {
		ctx, cancel := patient()
		defer cancel()
		if err := call(ctx); err != nil && ctx.Err() != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.hung = append(c.hung, err)
		}
	})
}

func (c *calls) wait(t failer, v *watched) {
	t.Helper()
	c.wg.Wait()
	if len(c.hung) > 0 {
		t.Fatalf("no answer: %v; %s", errors.Join(c.hung...), v.summary())
	}
}

// Whatever is asked for at the same time, an instance never has more than two processes, and in the end one.
func TestAnythingAtOnceDuringReplacementsEndsWithOneProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	names := []string{"a.1", "a.2"}
	rapid.Check(t, func(t *rapid.T) {
		version := "0"
		specs := func() []plan.Spec {
			var all []plan.Spec
			for _, name := range names {
				s := w.spec(name, "double", w.path(name+".lock"))
				s.Env = append(s.Env, "VERSION="+version)
				s.Health, s.Notify = &plan.Health{Notify: true}, true
				s.Rolling = plan.Rolling{Surge: 1}
				s.Restart.Budget = 1 << 20
				all = append(all, s)
			}
			return all
		}
		v.apply(t, specs()...)
		var calls calls
		for range rapid.IntRange(1, 6).Draw(t, "operations") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			switch rapid.SampledFrom([]string{"stop", "restart", "restart", "kill", "exit", "change", "change", "wait"}).Draw(t, "operation") {
			case "stop":
				calls.answered(func(ctx context.Context) error { return v.Stop(ctx, name) })
			case "restart":
				calls.answered(func(ctx context.Context) error { return v.Restart(ctx, "a") })
			case "kill":
				calls.answered(func(ctx context.Context) error { return w.client.Signal(ctx, name, syscall.SIGKILL, false) })
			case "exit":
				calls.answered(func(ctx context.Context) error { return w.client.Signal(ctx, name+"+", syscall.SIGUSR2, false) })
			case "change":
				version = rapid.StringMatching(`[a-z]{8}`).Draw(t, "version")
				now := specs()
				calls.answered(func(ctx context.Context) error { _, err := v.Apply(ctx, now); return err })
			case "wait":
				calls.wait(t, v)
			}
		}
		calls.wait(t, v)
		final := specs()
		v.apply(t, final...)
		ctx, cancel := patient()
		defer cancel()
		for _, s := range final {
			_ = v.Start(ctx, s.Name) // a late kill may make it crash once more
		}
		var processes []keeper.Process
		for settled := false; !settled; { // what was given up because of a kill is tried again
			v.apply(t, final...)
			var shown []status.Instance
			must(t, v.Wait(ctx, func(all []status.Instance) bool {
				shown = all
				settled = !slices.ContainsFunc(all, func(i status.Instance) bool { return i.State != status.Ready || i.Change != "" })
				return settled || slices.ContainsFunc(all, func(i status.Instance) bool { return i.Change == status.ChangeFailed })
			}))
			if !settled {
				continue
			}
			all, _, err := w.client.List(ctx)
			must(t, err)
			processes = slices.DeleteFunc(all, func(p keeper.Process) bool { return p.Exit != nil })
			for _, i := range shown {
				if !slices.ContainsFunc(processes, func(p keeper.Process) bool { return p.PID == i.PID }) {
					// A signal is sent before it is obeyed: the process ended just now, and the supervisor is about to hear it.
					v.awaitThat(t, "told that its process has ended", func(now status.Instance) bool { return now.PID != i.PID }, i.Name)
					settled = false
				}
			}
			if settled && len(processes) != len(names) || len(processes) > len(names) {
				t.Fatalf("there live %v; %s", processes, v.summary())
			}
		}
		for _, p := range processes {
			if i := slices.IndexFunc(final, func(s plan.Spec) bool { return s.Name == p.Labels["instance"] }); final[i].Hash() != p.Labels["hash"] {
				t.Fatalf("%s is not as it is wanted; %s", p.Name, v.summary())
			}
		}
		if content, err := os.ReadFile(w.path("TRIPLE")); err == nil {
			t.Fatalf("three processes lived at once under %s", content)
		}
	})
}
