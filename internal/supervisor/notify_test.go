package supervisor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func TestWatchdogReplacesAProcessThatIsStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	spec.Watchdog = time.Second
	spec.Health = &plan.Health{Notify: true, Grace: time.Hour}
	spec.Stop.Grace = time.Hour
	v.apply(t, spec)
	tell("say READY=1")
	before := v.await(t, status.Ready, "a.1")
	must(t, syscall.Kill(before.PID, syscall.SIGSTOP))
	stopped := time.Now()
	// A stopped process does not take SIGABRT: it is killed 2s later.
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.Restarts == 1 && i.PID != 0 }, "a.1")
	took := time.Since(stopped)
	if alive(before.PID) {
		t.Error("the hung process lives")
	}
	t.Logf("replaced %s after SIGSTOP; watchdog 1s, abort 2s", took)
	if took < 2*time.Second {
		t.Errorf("it had %s", took)
	}
	told := false
	for _, e := range v.told("a.1") {
		told = told || e.State == status.Backoff && e.Reason == "no WATCHDOG=1 within 1s"
	}
	if !told {
		t.Errorf("the reason is not told: %+v", v.told("a.1"))
	}
}

func TestWatchdogIsFedAndChangedAndTriggered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	spec.Watchdog = 2 * time.Second
	v.apply(t, spec)
	before := v.await(t, status.Ready, "a.1")
	// Fed for longer than its period.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		was := v.get(t, "a.1").Status
		tell("say WATCHDOG=1;STATUS=" + time.Now().String())
		v.awaitThat(t, "heard", func(i status.Instance) bool { return i.Status != was }, "a.1")
	}
	if i := v.get(t, "a.1"); i.PID != before.PID {
		t.Fatalf("it was restarted: %+v", i)
	}
	tell("say WATCHDOG_USEC=100000") // a tenth of a second from now on
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.State == status.Ready && i.Restarts == 1 }, "a.1")
	tell("say WATCHDOG_USEC=0") // never
	tell("say STATUS=free")
	v.awaitThat(t, "heard", func(i status.Instance) bool { return i.Status == "free" }, "a.1")
	tell("say WATCHDOG=trigger")
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.State == status.Ready && i.Restarts == 2 }, "a.1")
	var reasons []string
	for _, e := range v.told("a.1") {
		if e.State == status.Backoff {
			reasons = append(reasons, e.Reason)
		}
	}
	if got, want := strings.Join(reasons, "; "), "no WATCHDOG=1 within 100ms; it reports itself broken (WATCHDOG=trigger)"; got != want {
		t.Errorf("reasons are %q, want %q", got, want)
	}
}

func TestWatchdogOfAProcessThatHungWhileNobodyWatched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	spec.Watchdog = 2 * time.Second
	first.apply(t, spec)
	before := first.await(t, status.Ready, "a.1")
	tell("say WATCHDOG=1;STATUS=fed")
	first.awaitThat(t, "fed", func(i status.Instance) bool { return i.Status == "fed" }, "a.1")
	first.stop()
	second := w.supervise(t)
	second.apply(t, spec)
	second.awaitThat(t, "replaced", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before.PID }, "a.1")
}

func TestStoppingByItselfIsShownAndIsNoCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	spec.Restart.Policy = plan.OnFailure
	// A probe that fails from the start of its stop on must not condemn it.
	spec.Health = &plan.Health{Exec: []string{w.self, "check", w.path("gate")}, Interval: time.Millisecond, Timeout: time.Minute, Failures: 1}
	w.open(t, "gate")
	v.apply(t, spec)
	v.await(t, status.Ready, "a.1")
	tell("say STOPPING=1;STATUS=saving")
	if i := v.await(t, status.Stopping, "a.1"); i.Reason != "stops by itself" || i.Status != "saving" {
		t.Errorf("%+v", i)
	}
	w.close(t, "gate")
	tell("say STATUS=saved")
	v.awaitThat(t, "heard", func(i status.Instance) bool { return i.State == status.Stopping && i.Status == "saved" }, "a.1")
	tell("exit 0")
	if i := v.await(t, status.Exited, "a.1"); i.Reason != "exit status 0" || i.Restarts != 0 {
		t.Errorf("%+v", i)
	}
}

func TestStoppingByItselfHasTheGraceAndIsKilledThen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	spec.Stop.Grace = 100 * time.Millisecond
	v.apply(t, spec)
	v.await(t, status.Ready, "a.1")
	tell("say STOPPING=1")
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.State == status.Ready && i.Restarts == 1 }, "a.1")
	killed := false
	for _, e := range v.told("a.1") {
		killed = killed || e.Reason == "killed: it did not stop within 100ms"
	}
	if !killed {
		t.Errorf("%+v", v.told("a.1"))
	}
}

func TestReloadingIsShownUntilReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	v.apply(t, spec)
	v.await(t, status.Ready, "a.1")
	tell("say RELOADING=1")
	v.awaitThat(t, "reloading", func(i status.Instance) bool { return i.State == status.Ready && i.Reason == "reloading" }, "a.1")
	tell("say READY=1")
	v.awaitThat(t, "back", func(i status.Instance) bool { return i.State == status.Ready && i.Reason == "" }, "a.1")
}

func TestTimeoutsOfStartAndStopAreExtended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	spec.Health = &plan.Health{Notify: true, Grace: time.Second}
	spec.Stop = plan.Stop{Grace: time.Second, Signal: syscall.SIGWINCH} // which it does not notice
	v.apply(t, spec)
	started := v.awaitThat(t, "starting", func(i status.Instance) bool { return i.State == status.Starting && i.PID != 0 }, "a.1")
	extend := func(state status.State) {
		t.Helper()
		for began := time.Now(); time.Since(began) < 2*time.Second; {
			was := v.get(t, "a.1").Status
			tell("say EXTEND_TIMEOUT_USEC=60000000;STATUS=" + time.Now().String())
			i := v.awaitThat(t, "heard", func(i status.Instance) bool { return i.Status != was }, "a.1")
			if i.State != state || i.PID != started.PID {
				t.Fatalf("%+v", i)
			}
		}
	}
	extend(status.Starting)
	tell("say READY=1")
	v.await(t, status.Ready, "a.1")
	ctx, cancel := patient()
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- v.Stop(ctx, "a") }()
	v.await(t, status.Stopping, "a.1")
	extend(status.Stopping)
	tell("exit 0")
	must(t, <-stopped)
	if i := v.get(t, "a.1"); i.Reason != "exit status 0" {
		t.Errorf("%+v", i)
	}
}

func TestDescriptorsAreKeptOverARestartAndDroppedByAStop(t *testing.T) {
	t.Parallel()
	for _, surge := range []int{0, 1} {
		t.Run(fmt.Sprintf("surge %d", surge), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.supervise(t)
			spec, _ := w.talker(t, "a.1")
			spec.Rolling = plan.Rolling{Surge: surge, Timeout: patience}
			v.apply(t, spec)
			v.await(t, status.Ready, "a.1")
			ctx, cancel := patient()
			defer cancel()
			// As if a child of it gave the file: whoever carries its HOZO_RUN is of its tree.
			must(t, w.asChild(w.process(t, ctx, "a.1").Run, "store", w.path("state/notify.sock")))
			waitFor(t, "file to be stored", func() bool { return w.process(t, ctx, "a.1").Stored > 0 })
			inherited := func() string {
				env, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(v.get(t, "a.1").PID), "environ"))
				must(t, err)
				for kv := range strings.SplitSeq(string(env), "\x00") {
					if names, ok := strings.CutPrefix(kv, "LISTEN_FDNAMES="); ok {
						return names
					}
				}
				return ""
			}
			for range 2 { // with surge, the process has another name each time
				must(t, v.Restart(ctx, "a"))
				if got := inherited(); got != "kept" {
					t.Errorf("after a restart it inherits %q", got)
				}
			}
			must(t, v.Restart(ctx, "a"))
			must(t, v.Stop(ctx, "a"))
			must(t, v.Start(ctx, "a"))
			if got := inherited(); got != "" {
				t.Errorf("after a stop it inherits %q", got)
			}
		})
	}
}

// process returns the keeper's record of a process.
func (w *world) process(t failer, ctx context.Context, name string) keeper.Process {
	t.Helper()
	processes, _, err := w.client.List(ctx)
	must(t, err)
	for _, p := range processes {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("the keeper knows no %s", name)
	return keeper.Process{}
}
