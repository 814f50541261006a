package supervisor_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/supervisor"
)

func TestNextSupervisorAdoptsWhatRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	w.open(t, "web.1.gate")
	specs := []plan.Spec{w.sleeper("a.1"), w.web("web.1", "tcp", "127.0.0.1:0"), w.sleeper("b.1", plan.Need{Service: "web"})}
	first.apply(t, specs...)
	first.await(t, status.Ready, "a.1", "web.1", "b.1")
	must(t, syscall.Kill(first.get(t, "a.1").PID, syscall.SIGKILL))
	first.awaitThat(t, "restarted", func(i status.Instance) bool { return i.State == status.Ready && i.Restarts == 1 }, "a.1")
	before, addresses := first.pids(), first.Addresses()
	first.stop()

	began := time.Now()
	second := w.supervise(t)
	if steps := second.apply(t, specs...); len(steps) > 0 {
		t.Errorf("adopting does %v", steps)
	}
	second.await(t, status.Ready, "a.1", "web.1", "b.1")
	if diff := cmp.Diff(before, second.pids()); diff != "" {
		t.Error(diff)
	}
	if i := second.get(t, "b.1"); i.Since.After(began) {
		t.Errorf("it is said to run only since %s", i.Since)
	}
	if diff := cmp.Diff(addresses, second.Addresses()); diff != "" {
		t.Error(diff)
	}
	if i := second.get(t, "a.1"); i.Restarts != 1 {
		t.Errorf("its restarts are forgotten: %+v", i)
	}
	// It is adopted in earnest: a crash is noticed and repaired.
	must(t, syscall.Kill(before["a.1"], syscall.SIGKILL))
	second.awaitThat(t, "restarted", func(i status.Instance) bool { return i.State == status.Ready && i.Restarts == 2 }, "a.1")
}

func TestNextSupervisorLearnsHowAnInstanceEndedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	crash, once := w.sleeper("crash.1"), w.sleeper("once.1")
	crash.Restart = plan.Restart{Delay: time.Hour, Max: time.Hour}
	once.Restart.Policy = plan.Never
	first.apply(t, crash, once)
	first.await(t, status.Ready, "crash.1", "once.1")
	for _, name := range []string{"crash.1", "once.1"} {
		appears(t, w.path(name+".lock.up")) // it handles signals now
	}
	first.stop()
	ctx, cancel := patient()
	defer cancel()
	exits, err := w.client.Events(ctx)
	must(t, err)
	must(t, w.client.Signal(ctx, "crash.1", syscall.SIGUSR2, false))
	must(t, w.client.Signal(ctx, "once.1", syscall.SIGKILL, false))
	for ended := 0; ended < 2; {
		if e := <-exits; e.Process.Exit != nil {
			ended++
		}
	}

	second := w.supervise(t)
	second.apply(t, crash, once)
	if i := second.await(t, status.Backoff, "crash.1"); i.Reason != "exit status 3" {
		t.Errorf("%+v", i)
	}
	if i := second.await(t, status.Exited, "once.1"); i.Reason != "ended by SIGKILL" {
		t.Errorf("%+v", i)
	}
}

func TestNextSupervisorReplacesWhatChangedAndRemovesWhatIsNotWanted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	first.apply(t, w.sleeper("a.1"), w.sleeper("a.2"), w.sleeper("b.1"), w.sleeper("c.1"))
	first.await(t, status.Ready, "a.1", "a.2", "b.1", "c.1")
	before := first.pids()
	first.stop()

	ctx, cancel := patient()
	defer cancel()
	_, err := w.client.Spawn(ctx, keeper.Spawn{
		Name: "stranger", Argv: []string{w.self, "sleeper", w.path("stranger.lock")}, Env: []string{}, Dir: w.dir,
		Log: keeper.Log{Path: w.path("stranger.log")},
	})
	must(t, err)
	second := w.supervise(t)
	a1, a2 := w.sleeper("a.1"), w.sleeper("a.2")
	a1.Env, a2.Env = []string{quickExit, "COLOUR=green"}, []string{"COLOUR=green"}
	second.apply(t, a1, a2, w.sleeper("b.1"))
	second.awaitThat(t, "replaced", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before[i.Name] }, "a.1", "a.2")
	if i := second.get(t, "b.1"); i.PID != before["b.1"] {
		t.Errorf("%+v", i)
	}
	if alive(before["c.1"]) {
		t.Error("c.1 is not wanted and runs on")
	}
	processes, _, err := w.client.List(ctx)
	must(t, err)
	stranger := false
	for _, p := range processes {
		stranger = stranger || p.Name == "stranger" && p.Exit == nil
	}
	if !stranger {
		t.Error("a process that is not the supervisor's was touched")
	}
	second.stop()
	second.neverTwoDown(t, []string{"a.1", "a.2"})
}

func TestWhatAPersonStoppedStaysStoppedUnderTheNextSupervisor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	specs := []plan.Spec{w.sleeper("a.1"), w.sleeper("b.1"), w.sleeper("c.1"), w.sleeper("d.1")}
	names := []string{"a.1", "b.1", "c.1", "d.1"}
	ctx, cancel := patient()
	defer cancel()

	first := w.supervise(t)
	first.apply(t, specs...)
	first.await(t, status.Ready, names...)
	must(t, first.Stop(ctx, "a"))
	must(t, first.Stop(ctx, "b"))
	must(t, first.Stop(ctx, "c"))
	must(t, first.Start(ctx, "b")) // a mark that is not valid any more
	must(t, syscall.Kill(first.get(t, "d.1").PID, syscall.SIGTERM))
	first.stop()

	second := w.supervise(t)
	specs[2].Env = []string{quickExit, "COLOUR=green"} // changed, and still stopped
	if got := plan.Format(second.apply(t, specs...)); got != "update  c.1 (env.COLOUR changed; it stays stopped)\n" {
		t.Errorf("apply does %s", got)
	}
	second.await(t, status.Ready, "b.1", "d.1")
	second.await(t, status.Stopped, "a.1", "c.1")
	must(t, second.Start(ctx, "c"))
	must(t, second.StopAll(ctx))
	second.stop()

	third := w.supervise(t)
	third.apply(t, specs...)
	third.await(t, status.Ready, "b.1", "c.1", "d.1")
	third.await(t, status.Stopped, "a.1")
	must(t, third.Start(ctx, "a"))
}

func TestFiftySupervisorsInARowTouchNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var specs []plan.Spec
	var names []string
	for n := range 5 {
		name := "a." + strconv.Itoa(n+1)
		names = append(names, name)
		specs = append(specs, w.sleeper(name))
	}
	var before map[string]int
	for range 50 {
		v := w.supervise(t)
		v.apply(t, specs...)
		v.await(t, status.Ready, names...)
		if before == nil {
			before = v.pids()
		}
		if diff := cmp.Diff(before, v.pids()); diff != "" {
			t.Fatal(diff)
		}
		v.stop()
	}
}

func TestRunEndsWithAnErrorWhenTheKeeperIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := patient()
	defer cancel()
	client, err := keeper.Dial(ctx, keeper.SocketPath(w.path("state")))
	must(t, err)
	s := supervisor.New(supervisor.Config{Keeper: client})
	result := make(chan error, 1)
	runCtx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { result <- s.Run(runCtx) })
	<-s.Ready()
	_, err = s.Apply(ctx, []plan.Spec{w.sleeper("a.1")})
	must(t, err)
	must(t, client.Close())
	if err := <-result; !errors.Is(err, supervisor.ErrKeeperLost) {
		t.Errorf("run says %v", err)
	}
	if err := s.Stop(ctx, "a"); !errors.Is(err, supervisor.ErrNotRunning) {
		t.Errorf("stop says %v", err)
	}
}
