package supervisor_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// hooked is a sleeper whose hooks each write their moment to the file hooks.ticks.
func (w *world) hooked(name string, moments ...string) plan.Spec {
	s := w.sleeper(name)
	for _, m := range moments {
		s.Hooks = append(s.Hooks, plan.Hook{Moment: m, Argv: []string{w.self, "append", w.path("hooks.ticks"), "0"}})
	}
	return s
}

var moments = []string{plan.BeforeStart, plan.AfterReady, plan.BeforeStop, plan.AfterStop}

func (w *world) awaitHooks(t *testing.T, want ...string) {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got := strings.Join(w.ticks(t, "hooks"), " ")
		if got == strings.Join(want, " ") {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("hooks ran: %s; want %v", got, want)
		}
	}
}

func TestHooksRunInOrderAroundALife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	v.apply(t, w.hooked("a.1", moments...))
	v.await(t, status.Ready, "a.1")
	w.awaitHooks(t, moments[:2]...)
	ctx, cancel := patient()
	defer cancel()
	must(t, v.Restart(ctx, "a"))
	w.awaitHooks(t, append(append([]string(nil), moments...), moments[:2]...)...)
	must(t, v.Stop(ctx, "a"))
	w.awaitHooks(t, append(append([]string(nil), moments...), moments...)...)
	if i := v.get(t, "a.1"); i.State != status.Stopped || i.Reason != "exit status 0" {
		t.Errorf("%+v", i)
	}
	v.apply(t) // forgets the instance and its hooks
	processes, _, err := w.client.List(ctx)
	if must(t, err); len(processes) != 0 {
		t.Errorf("left: %+v", processes)
	}
}

func TestFailingHookVetoesTheStartAndIsOtherwiseReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	veto := w.sleeper("veto.1")
	veto.Hooks = []plan.Hook{{Moment: plan.BeforeStart, Argv: []string{w.self, "exit", "4"}}}
	missing := w.sleeper("missing.1")
	missing.Hooks = []plan.Hook{{Moment: plan.BeforeStart, Argv: []string{w.path("none")}}}
	missing.Restart.Policy = plan.Never
	told := w.sleeper("told.1")
	told.Hooks = []plan.Hook{{Moment: plan.AfterReady, Argv: []string{w.self, "exit", "5"}}}
	v.apply(t, veto, missing, told)
	v.awaitThat(t, "refused twice", func(i status.Instance) bool {
		return i.State == status.Backoff && i.Restarts >= 2 && i.Reason == "before_start: exit status 4"
	}, "veto.1")
	if i := v.await(t, status.Exited, "missing.1"); !strings.Contains(i.Reason, "before_start: cannot be started") || !strings.Contains(i.Reason, "none") {
		t.Errorf("%+v", i)
	}
	v.awaitThat(t, "ready with a remark", func(i status.Instance) bool {
		return i.State == status.Ready && i.Reason == "after_ready: exit status 5"
	}, "told.1")
	if _, err := os.Stat(w.path("veto.1.lock.up")); err == nil {
		t.Error("it was started all the same")
	}
}

func TestHookBeyondItsTimeIsKilledWithItsTree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	s := w.sleeper("a.1")
	s.Restart.Policy = plan.Never
	s.Hooks = []plan.Hook{{Moment: plan.BeforeStart, Argv: []string{w.self, "stubborn", w.path("pids")}, Timeout: 2 * time.Second}}
	v.apply(t, s)
	pids := strings.Fields(appears(t, w.path("pids")))
	i := v.await(t, status.Exited, "a.1")
	if i.Reason != "before_start: killed: its time was over" {
		t.Errorf("%+v", i)
	}
	for _, pid := range pids {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s of the hook lives on", pid)
		}
	}
}

func TestStopDuringAHookBeforeTheStartEndsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	s := w.sleeper("a.1")
	s.Hooks = []plan.Hook{{Moment: plan.BeforeStart, Argv: []string{w.self, "sleeper", w.path("hook.lock")}}}
	v.apply(t, s)
	appears(t, w.path("hook.lock.up"))
	ctx, cancel := patient()
	defer cancel()
	must(t, v.Stop(ctx, "a"))
	v.await(t, status.Stopped, "a.1")
	s.Hooks[0].Argv = []string{w.self, "exit", "0"}
	v.apply(t, s)
	must(t, v.Start(ctx, "a"))
	v.await(t, status.Ready, "a.1")
}

func TestHookOutlivesItsSupervisorAndIsNotRunAgain(t *testing.T) {
	t.Parallel()
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.sleeper("a.1")
			must(t, os.WriteFile(w.path("gate"), nil, 0o600))
			// It says that it runs, and ends when the gate is gone.
			s.Hooks = []plan.Hook{{Moment: moment, Argv: []string{
				"/bin/sh", "-c",
				`echo "$HOZO_HOOK" >> "$0"; while [ -e "$1" ]; do sleep 0.01; done`, w.path("hooks.ticks"), w.path("gate"),
			}}}
			v := w.supervise(t)
			v.apply(t, s)
			if moment == plan.BeforeStop || moment == plan.AfterStop {
				v.await(t, status.Ready, "a.1")
				appears(t, w.path("a.1.lock.up"))
				ctx, cancel := patient()
				defer cancel()
				done := make(chan struct{})
				go func() { // ends with the supervisor; the restart takes as long as the hook
					defer close(done)
					_ = v.Restart(ctx, "a") // it is cut off
				}()
				defer func() { <-done }()
			}
			w.awaitHooks(t, moment)
			v.stop()
			v = w.supervise(t)
			v.apply(t, s)
			must(t, os.Remove(w.path("gate")))
			v.await(t, status.Ready, "a.1")
			w.awaitHooks(t, moment)
		})
	}
}
