package supervisor_test

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func TestCrashedInstanceIsStartedAgainAfterGrowingDelays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	ctx, cancel := patient()
	defer cancel()
	events, err := w.client.Events(ctx)
	must(t, err)
	spec := w.spec("job.1", "exit", "3")
	// Ten delays are more than the program takes to crash on a busy machine; after such a run it would be started at once.
	spec.Restart = plan.Restart{Delay: 200 * time.Millisecond, Max: 800 * time.Millisecond, Reset: time.Minute}
	v.apply(t, spec)
	var fell time.Duration
	for i := 0; i < 5; {
		e := <-events
		switch {
		case e.Process.Exit != nil:
			fell = e.Process.Exit.At
		case e.Kind == keeper.EventStarted && fell != 0:
			// Above the delay the machine may be busy.
			want := []time.Duration{200, 400, 800, 800, 800}[i] * time.Millisecond
			if waited := e.Process.Since - fell; waited < want {
				t.Errorf("restart %d came after %s, at least %s was due", i, waited, want)
			}
			i++
		}
	}
	for _, e := range v.told("job.1") {
		if e.State == status.Backoff && e.Reason != "exit status 3" {
			t.Errorf("reason is %q", e.Reason)
		}
	}
}

func TestDelayStartsOverAfterAStableRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	// Without the reset, the fourth crash would wait longer than anybody here does.
	spec.Restart = plan.Restart{Delay: time.Millisecond, Max: time.Hour, Reset: time.Nanosecond, Budget: 1000}
	v.apply(t, spec)
	for n := range 25 {
		i := v.awaitThat(t, "up again", func(i status.Instance) bool { return i.State == status.Ready && i.Restarts == n }, "a.1")
		must(t, syscall.Kill(i.PID, syscall.SIGKILL))
	}
}

// lateAnswers is a keeper whose answer to a spawn is written after the program has ended, with its end in it.
type lateAnswers struct{ *keeper.Client }

func (k lateAnswers) Spawn(ctx context.Context, s keeper.Spawn) (keeper.Process, error) {
	p, err := k.Client.Spawn(ctx, s)
	if err != nil {
		return p, err
	}
	for {
		all, _, err := k.List(ctx)
		if err != nil {
			return p, err
		}
		for _, now := range all {
			if now.Run == p.Run && now.Exit != nil {
				return now, nil
			}
		}
	}
}

func TestAnEndBeforeTheKeepersAnswerIsNotMissed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.superviseBy(t, lateAnswers{w.client})
	once, again := w.spec("once.1", "exit", "3"), w.spec("again.1", "exit", "0")
	once.Restart.Policy, again.Restart.Policy = plan.Never, plan.Always
	once.Hooks = []plan.Hook{{Moment: plan.BeforeStart, Argv: []string{w.self, "exit", "0"}, Timeout: patience}}
	v.apply(t, once, again)
	if i := v.await(t, status.Exited, "once.1"); i.Reason != "exit status 3" {
		t.Errorf("%+v", i)
	}
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.Restarts > 2 }, "again.1")
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	var specs []plan.Spec
	for name, c := range map[string]struct{ policy, code string }{
		"failed-done.1": {plan.OnFailure, "0"}, "never-done.1": {plan.Never, "0"}, "never-failed.1": {plan.Never, "7"},
		"always-done.1": {plan.Always, "0"}, "failed-failed.1": {plan.OnFailure, "7"},
	} {
		spec := w.spec(name, "exit", c.code)
		spec.Restart.Policy = c.policy
		specs = append(specs, spec)
	}
	v.apply(t, specs...)
	v.await(t, status.Exited, "failed-done.1", "never-done.1", "never-failed.1")
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.Restarts > 1 }, "always-done.1", "failed-failed.1")
	if i := v.get(t, "never-failed.1"); i.Reason != "exit status 7" || i.Restarts != 0 {
		t.Errorf("%+v", i)
	}
	ctx, cancel := patient()
	defer cancel()
	if err := v.Start(ctx, "never-done.1"); err != nil {
		t.Errorf("starting a job again: %v", err)
	}
	if err := v.Restart(ctx, "always-done.1"); err != nil && !strings.Contains(err.Error(), "exit status 0") {
		t.Errorf("restarting what ends at once: %v", err)
	}
}

func TestKilledInstanceShowsItsSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	spec.Restart.Policy = plan.Never
	v.apply(t, spec)
	i := v.await(t, status.Ready, "a.1")
	must(t, syscall.Kill(i.PID, syscall.SIGKILL))
	if i := v.await(t, status.Exited, "a.1"); i.Reason != "ended by SIGKILL" || i.PID != 0 {
		t.Errorf("%+v", i)
	}
}

func TestMissingBinaryFailsWithAFixAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	spec.Argv[0] = w.path("program")
	v.apply(t, spec)
	i := v.await(t, status.Failed, "a.1")
	if !strings.Contains(i.Reason, spec.Argv[0]) || !strings.Contains(i.Reason, "; ") {
		t.Errorf("reason is %q", i.Reason)
	}
	ctx, cancel := patient()
	defer cancel()
	if err := v.Start(ctx, "a.1"); err == nil {
		t.Error("starting a missing program is no error")
	}
	must(t, os.Symlink(w.self, spec.Argv[0]))
	v.await(t, status.Ready, "a.1")
}

func TestStopOfWhatIgnoresTermKillsItsTreeAfterTheGrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.spec("a.1", "stubborn", w.path("pids"))
	spec.Stop.Grace = 100 * time.Millisecond
	v.apply(t, spec)
	pids := appears(t, w.path("pids"))
	ctx, cancel := patient()
	defer cancel()
	began := time.Now()
	must(t, v.Stop(ctx, "a"))
	if took := time.Since(began); took < spec.Stop.Grace {
		t.Errorf("it had %s instead of its grace", took)
	}
	if i := v.get(t, "a.1"); i.State != status.Stopped || i.Reason != "ended by SIGKILL" {
		t.Errorf("%+v", i)
	}
	for _, pid := range ints(t, pids) {
		if alive(pid) {
			t.Errorf("process %d survived", pid)
		}
	}
}

func TestStopEndsEveryStateInWhichAnInstanceCanBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	backoff := w.spec("backoff.1", "exit", "1")
	backoff.Restart = plan.Restart{Delay: time.Hour, Max: time.Hour}
	failed := w.spec("failed.1", "sleeper")
	failed.Argv[0] = w.path("missing")
	v.apply(t,
		backoff, failed, w.sleeper("ready.1"), w.sleeper("pending.1", plan.Need{Service: "backoff", Condition: plan.Completed}),
		w.starting("starting.1"),
	)
	v.await(t, status.Backoff, "backoff.1")
	v.await(t, status.Failed, "failed.1")
	v.await(t, status.Pending, "pending.1")
	v.await(t, status.Starting, "starting.1")
	v.await(t, status.Ready, "ready.1")
	ctx, cancel := patient()
	defer cancel()
	for _, service := range []string{"backoff", "failed", "pending", "starting", "ready"} {
		must(t, v.Stop(ctx, service))
		must(t, v.Stop(ctx, service)) // stopping what is stopped is no error
		if i := v.get(t, service+".1"); i.State != status.Stopped {
			t.Errorf("%+v", i)
		}
	}
}

func TestUnknownNameIsAMisuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	ctx, cancel := patient()
	defer cancel()
	for name, call := range map[string]error{
		"start": v.Start(ctx, "ghost"), "stop": v.Stop(ctx, "ghost"), "restart": v.Restart(ctx, "ghost"),
	} {
		if call == nil || !strings.Contains(call.Error(), `"ghost"`) {
			t.Errorf("%s: %v", name, call)
		}
	}
}
