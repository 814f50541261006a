package supervisor_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/supervisor"
)

func (v *watched) pids() map[string]int {
	pids := make(map[string]int)
	for _, i := range v.Instances() {
		pids[i.Name] = i.PID
	}
	return pids
}

func TestApplyRestartsExactlyWhatChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	names := []string{"a.1", "b.1", "c.1", "d.1"}
	specs := []plan.Spec{w.sleeper("a.1"), w.sleeper("b.1"), w.sleeper("c.1"), w.sleeper("d.1")}
	v.apply(t, specs...)
	v.await(t, status.Ready, names...)
	before := v.pids()

	if steps := v.apply(t, specs...); len(steps) > 0 {
		t.Errorf("applying the same does %v", steps)
	}

	hot := slices.Clone(specs)
	for i := range hot {
		hot[i].Restart.Max = time.Second
		hot[i].Stop.Grace = 7 * time.Second
		hot[i].Log.Keep = 9
		hot[i].Health = &plan.Health{TCP: "127.0.0.1:1", Failures: 1 << 20}
	}
	steps := v.apply(t, hot...)
	if len(steps) != 4 || steps[0].Op != plan.OpUpdate {
		t.Errorf("the hot change does %v", steps)
	}
	if diff := cmp.Diff(before, v.pids()); diff != "" {
		t.Errorf("the hot change restarts something: %s", diff)
	}
	v.apply(t, specs...)

	changed := slices.Clone(specs)
	changed[2].Env = append(slices.Clone(changed[2].Env), "COLOUR=green")
	steps = v.apply(t, changed...)
	if got := plan.Format(steps); got != "restart c.1 (env.COLOUR changed)\n" {
		t.Errorf("the change does %s", got)
	}
	v.awaitThat(t, "replaced", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before["c.1"] }, "c.1")
	after := v.pids()
	delete(after, "c.1")
	delete(before, "c.1")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the change restarts something else: %s", diff)
	}
}

func TestApplyStopsAndForgetsWhatIsNotWanted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	web := w.web("web.1", "tcp", "127.0.0.1:0")
	w.open(t, "web.1.gate")
	v.apply(t, w.sleeper("a.1"), w.sleeper("b.1", plan.Need{Service: "a"}), web)
	v.await(t, status.Ready, "a.1", "b.1", "web.1")
	steps := v.apply(t, w.sleeper("a.1"))
	if got := plan.Format(steps); strings.Count(got, "stop ") != 2 {
		t.Errorf("steps: %s", got)
	}
	if all := v.Instances(); len(all) != 1 || all[0].Name != "a.1" {
		t.Errorf("left: %+v", all)
	}
	ctx, cancel := patient()
	defer cancel()
	processes, sockets, err := w.client.List(ctx)
	must(t, err)
	if len(processes) != 1 || len(sockets) != 0 {
		t.Errorf("the keeper still has %v and %v", processes, sockets)
	}
	v.apply(t, w.sleeper("b.1"), w.sleeper("a.1")) // and back
	v.await(t, status.Ready, "a.1", "b.1")
	if all := v.Instances(); all[0].Name != "b.1" {
		t.Errorf("not in the order of the specs: %+v", all)
	}
}

func TestChangedServiceRollsAndABadVersionLeavesTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	names := []string{"web.1", "web.2", "web.3"}
	version := func(env string) []plan.Spec {
		var specs []plan.Spec
		for _, name := range names {
			s := w.web(name, "tcp", "127.0.0.1:0")
			s.Argv[2] = w.path(env + ".gate")
			s.Health.Failures = 1 << 20 // a busy machine is not what is tested
			specs = append(specs, s)
		}
		return specs
	}
	w.open(t, "v1.gate")
	v.apply(t, version("v1")...)
	v.await(t, status.Ready, names...)
	before := v.pids()

	w.open(t, "v2.gate")
	v.apply(t, version("v2")...)
	v.awaitThat(t, "new", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before[i.Name] }, names...)
	before = v.pids()

	bad := version("v3") // its gate is closed, and the shared socket must not hide it
	for i := range bad {
		bad[i].Health = &plan.Health{Notify: true, Grace: 50 * time.Millisecond}
	}
	v.apply(t, bad...)
	v.awaitThat(t, "crashing", func(i status.Instance) bool { return i.Restarts >= 3 }, "web.1")
	after := v.pids()
	if after["web.2"] != before["web.2"] || after["web.3"] != before["web.3"] {
		t.Errorf("a version that does not get ready went on rolling: %s", v.summary())
	}
	if i := v.get(t, "web.2"); i.State != status.Ready || i.Reason != "changed, waits for its turn to restart" {
		t.Errorf("%+v", i)
	}
	v.apply(t, version("v2")...) // back again
	v.await(t, status.Ready, names...)
	after = v.pids()
	if after["web.2"] != before["web.2"] || after["web.3"] != before["web.3"] {
		t.Error("taking the bad version back restarts what never changed")
	}
	if i := v.get(t, "web.2"); i.Reason != "" {
		t.Errorf("%+v", i)
	}
	v.stop()
	v.neverTwoDown(t, names)
}

func TestStoppedInstanceStaysStoppedEvenWhenItChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	v.apply(t, spec)
	v.await(t, status.Ready, "a.1")
	ctx, cancel := patient()
	defer cancel()
	must(t, v.Stop(ctx, "a.1"))
	if steps := v.apply(t, spec); len(steps) > 0 {
		t.Errorf("steps: %v", steps)
	}
	if i := v.get(t, "a.1"); i.State != status.Stopped {
		t.Errorf("%+v", i)
	}
	must(t, v.Start(ctx, "a.1"))
	must(t, v.Stop(ctx, "a.1"))
	spec.Env = []string{quickExit, "COLOUR=green"}
	planned, err := v.Plan(ctx, []plan.Spec{spec})
	must(t, err)
	steps := v.apply(t, spec)
	if got := plan.Format(steps); got != "update  a.1 (env.COLOUR changed; it stays stopped)\n" || plan.Format(planned) != got {
		t.Errorf("apply does %s, plan said %s", got, plan.Format(planned))
	}
	if i := v.get(t, "a.1"); i.State != status.Stopped {
		t.Errorf("%+v", i)
	}
	if steps := v.apply(t, spec); len(steps) > 0 {
		t.Errorf("applying it again does %v", steps)
	}
	must(t, v.Start(ctx, "a.1"))
	if steps := v.apply(t, spec); len(steps) > 0 {
		t.Errorf("it was not started as it is wanted: %v", steps)
	}
}

// closeForGood closes a listener that no child has a copy of either: other tests start some, which have one until their
// exec.
func closeForGood(l net.Listener) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return l.Close()
}

func TestAddressInUseFailsThatServiceAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	spec := w.sleeper("web.1")
	spec.Listen = []plan.Listen{
		{Name: "free", Network: "tcp", Address: "127.0.0.1:0"},
		{Name: "http", Network: "tcp", Address: taken.Addr().String()},
	}
	ctx, cancel := patient()
	defer cancel()
	steps, err := v.Apply(ctx, []plan.Spec{spec, w.sleeper("a.1")})
	if fault.Code(err) != "keeper/address-in-use" {
		t.Errorf("error is %v", err)
	}
	if len(steps) != 1 || steps[0].Name != "a.1" {
		t.Errorf("steps: %v", steps)
	}
	v.await(t, status.Ready, "a.1")
	if i := v.await(t, status.Failed, "web.1"); !strings.Contains(i.Reason, taken.Addr().String()) {
		t.Errorf("reason is %q", i.Reason)
	}
	if got := v.Addresses(); len(got) > 0 {
		t.Errorf("sockets are left open: %v", got)
	}
	if err := v.Start(ctx, "web"); fault.Code(err) != "keeper/address-in-use" {
		t.Errorf("start says %v", err)
	}
	must(t, closeForGood(taken))
	must(t, v.Start(ctx, "web"))
	if i := v.get(t, "web.1"); i.State != status.Ready {
		t.Errorf("%+v", i)
	}

	// A running service whose new address is taken runs on as it was.
	before := v.pids()
	taken, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	moved := spec
	moved.Listen = slices.Clone(spec.Listen)
	moved.Listen[1].Address = taken.Addr().String()
	if _, err := v.Apply(ctx, []plan.Spec{moved, w.sleeper("a.1")}); fault.Code(err) != "keeper/address-in-use" {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff(before, v.pids()); diff != "" {
		t.Error(diff)
	}
	if v.Addresses()["web.http"] != spec.Listen[1].Address {
		t.Errorf("the old socket is gone: %v", v.Addresses())
	}
	must(t, closeForGood(taken))
	v.apply(t, moved, w.sleeper("a.1"))
	v.awaitThat(t, "moved", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before["web.1"] }, "web.1")
	if v.Addresses()["web.http"] != moved.Listen[1].Address {
		t.Errorf("the socket has not moved: %v", v.Addresses())
	}
}

func TestBadSpecsAreRefusedTogetherAndChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	ctx, cancel := patient()
	defer cancel()
	_, err := v.Apply(ctx, []plan.Spec{w.sleeper("a.1"), w.sleeper("a.1"), {Name: "b.1"}})
	if len(fault.Flatten(err)) != 2 || fault.ExitCode(err) != 2 {
		t.Errorf("error is %v", err)
	}
	if len(v.Instances()) > 0 {
		t.Error("something was started")
	}
}

func TestCallsAnswerWhenTheSupervisorIsNotRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	v.apply(t, w.sleeper("a.1"))
	pid := v.await(t, status.Ready, "a.1").PID
	v.stop()
	ctx, cancel := patient()
	defer cancel()
	for name, err := range map[string]error{
		"start": v.Start(ctx, "a"), "stop": v.Stop(ctx, "a"), "restart": v.Restart(ctx, "a"), "stop all": v.StopAll(ctx),
		"wait": v.Wait(ctx, func([]status.Instance) bool { return false }),
	} {
		if err == nil || ctx.Err() != nil {
			t.Errorf("%s says %v", name, err)
		}
	}
	if !alive(pid) {
		t.Error("the service ended with the supervisor")
	}
	never, stop := context.WithCancel(context.Background())
	stop()
	if err := supervisor.New(supervisor.Config{Keeper: w.client}).Stop(never, "a"); err == nil {
		t.Error("a call before Run with a finished context is answered without an error")
	}
	must(t, syscall.Kill(pid, syscall.SIGTERM))
}
