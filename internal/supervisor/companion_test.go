package supervisor_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// talkers are two versions of an instance that is replaced without a gap, each told what to do by itself.
func (w *world) talkers(t *testing.T) (v1, v2 plan.Spec, tell1, tell2 func(string)) {
	t.Helper()
	v1, tell1 = w.talker(t, "a.1")
	v1.Health = &plan.Health{Notify: true, Grace: patience}
	v1.Rolling = plan.Rolling{Surge: 1, Timeout: patience}
	v1.Stop = plan.Stop{Grace: patience, Signal: syscall.SIGWINCH} // which it does not notice
	v2 = v1
	v2.Env = append(v2.Env[:len(v2.Env)-1:len(v2.Env)-1], "TALKER_PIPE="+w.path("v2.pipe"))
	return v1, v2, tell1, w.pipe(t, "v2.pipe")
}

func TestBothProcessesOfAReplacementMayAskForMoreTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	v1, v2, tell1, tell2 := w.talkers(t)
	v1.Stop.Grace = time.Second
	v2.Rolling.Timeout = time.Second
	v.apply(t, v1)
	tell1("say READY=1")
	old := v.await(t, status.Ready, "a.1")

	tell2("say EXTEND_TIMEOUT_USEC=60000000") // it waits in the pipe until it is read
	began := time.Now()
	v.apply(t, v2)
	next := v.awaitChange(t, status.ChangeStarting, "a.1").NextPID
	waitFor(t, "more than its time to have passed", func() bool { return time.Since(began) > 2*time.Second })
	if i := v.get(t, "a.1"); i.Change != status.ChangeStarting || i.NextPID != next {
		t.Fatalf("%+v", i)
	}
	tell1("say EXTEND_TIMEOUT_USEC=60000000") // before it is asked to end
	tell2("say READY=1")
	draining := time.Now()
	v.awaitChange(t, status.ChangeDraining, "a.1")
	waitFor(t, "more than its grace to have passed", func() bool { return time.Since(draining) > 2*time.Second })
	if i := v.get(t, "a.1"); i.Change != status.ChangeDraining || i.PID != next || !alive(old.PID) {
		t.Fatalf("%+v", i)
	}
	tell1("exit 0")
	v.awaitChange(t, "", "a.1")
	tell2("exit 0")
}

func TestSuccessorThatReportsItselfBrokenIsGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	v1, v2, tell1, tell2 := w.talkers(t)
	v2.Stop = plan.Stop{Grace: patience, Signal: syscall.SIGTERM}
	v.apply(t, v1)
	tell1("say READY=1")
	old := v.await(t, status.Ready, "a.1")
	tell2("say WATCHDOG=trigger")
	v.apply(t, v2)
	if i := v.awaitChange(t, status.ChangeFailed, "a.1"); i.PID != old.PID || !strings.Contains(i.ChangeReason, "WATCHDOG=trigger") {
		t.Errorf("%+v", i)
	}
	tell1("exit 0")
}

// slowSpawns is a keeper whose answer to a spawn comes after the process has said what it has to say.
type slowSpawns struct {
	*keeper.Client
	said func(keeper.Process) bool
}

func (s slowSpawns) Spawn(ctx context.Context, request keeper.Spawn) (keeper.Process, error) {
	p, err := s.Client.Spawn(ctx, request)
	for err == nil && !s.said(p) {
		var all []keeper.Process
		if all, _, err = s.List(ctx); err == nil {
			p = all[slices.IndexFunc(all, func(one keeper.Process) bool { return one.Run == p.Run })]
		}
	}
	return p, err
}

func TestTriggerBeforeTheAnswerToASpawnIsHeard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.superviseBy(t, slowSpawns{w.client, func(p keeper.Process) bool { return p.Said.Trigger || p.Status == "well" }})
	spec, tell := w.talker(t, "a.1")
	tell("say WATCHDOG=trigger")
	v.apply(t, spec)
	v.await(t, status.Backoff, "a.1")
	tell("say STATUS=well") // to the next one
	v.awaitThat(t, "restarted", func(i status.Instance) bool {
		return i.State == status.Ready && i.Restarts == 1 && i.Status == "well"
	}, "a.1")
}

// Limits, logs and probes are changed while the new process starts, and once it serves under its other name.
func TestHotChangesReachAProcessOfTheOtherName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	v1, v2, tell1, tell2 := w.talkers(t)
	v.apply(t, v1)
	tell1("say READY=1")
	v.await(t, status.Ready, "a.1")
	v.apply(t, v2)
	next := v.awaitChange(t, status.ChangeStarting, "a.1").NextPID

	change := func(files uint64) {
		t.Helper()
		v2.Limits.Nofile = &files
		v2.Log.MaxBytes = int64(files) << 10
		v.apply(t, v2)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", next))
		must(t, err)
		if got := strings.Join(strings.Fields(string(text)), " "); !strings.Contains(got, fmt.Sprintf("Max open files %d %d", files, files)) {
			t.Errorf("its limits are %s", got)
		}
		tell2("print " + strings.Repeat("x", int(files)<<9))
		tell2("print " + strings.Repeat("y", int(files)<<9))
		tell2("print and the next file is begun")
		waitFor(t, "the log to be rotated by its new size", func() bool {
			rotated, err := os.Stat(w.path("a.1.log.1"))
			return err == nil && rotated.Size() > int64(files)<<9 && rotated.Size() < int64(files)<<11
		})
		must(t, os.Remove(w.path("a.1.log.1")))
	}
	change(77)
	v2.Health = &plan.Health{Log: "^at work$", Grace: patience}
	v.apply(t, v2)
	tell2("print at work")
	if i := v.awaitChange(t, status.ChangeStarting, "a.1"); i.NextPID != next {
		t.Errorf("%+v", i)
	}
	v2.Health = &plan.Health{Exec: []string{w.self, "check", w.path("gate")}, Interval: 10 * time.Millisecond, Timeout: patience, Grace: patience}
	v.apply(t, v2)
	w.open(t, "gate")
	if i := v.awaitChange(t, status.ChangeDraining, "a.1"); i.PID != next {
		t.Errorf("%+v", i)
	}
	change(66)
	tell1("exit 0")
	v.awaitChange(t, "", "a.1")
	change(55)
	if steps := v.apply(t, v2); len(steps) > 0 || v.get(t, "a.1").PID != next {
		t.Errorf("what was changed is still to do: %v", steps)
	}
	tell2("exit 0")
}
