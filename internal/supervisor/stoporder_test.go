package supervisor_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func ints(t failer, words string) []int {
	t.Helper()
	var all []int
	for word := range strings.FieldsSeq(words) {
		n, err := strconv.Atoi(word)
		must(t, err)
		all = append(all, n)
	}
	return all
}

// when returns the place of the first event of an instance in a state.
func (v *watched) when(t failer, name string, state status.State) int {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, e := range v.events {
		if e.Instance == name && e.State == state {
			return i
		}
	}
	t.Fatalf("%s was never %s", name, state)
	return 0
}

func TestServicesStartAfterWhatTheyNeedAndStopBeforeIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	// In the wrong order on purpose.
	v.apply(t,
		w.sleeper("sink.1", plan.Need{Service: "left"}, plan.Need{Service: "right"}),
		w.sleeper("left.1", plan.Need{Service: "broker"}),
		w.sleeper("right.1", plan.Need{Service: "broker"}),
		w.sleeper("right.2", plan.Need{Service: "broker"}),
		w.sleeper("broker.1"),
	)
	v.await(t, status.Ready, "sink.1", "left.1", "right.1", "right.2", "broker.1")
	ctx, cancel := patient()
	defer cancel()
	must(t, v.StopAll(ctx))
	v.stop() // every event has been told

	before := func(a string, as status.State, b string, bs status.State) {
		t.Helper()
		if v.when(t, a, as) > v.when(t, b, bs) {
			t.Errorf("%s was %s after %s was %s", a, as, b, bs)
		}
	}
	for _, middle := range []string{"left.1", "right.1", "right.2"} {
		before("broker.1", status.Ready, middle, status.Ready)
		before(middle, status.Ready, "sink.1", status.Ready)
		before("sink.1", status.Stopped, middle, status.Stopping)
		before(middle, status.Stopped, "broker.1", status.Stopping)
	}
}

func TestConditionsOfNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	job := w.spec("migrate.1", "exit", "0")
	job.Restart.Policy = plan.OnFailure
	broken := w.spec("broken.1", "exit", "1")
	broken.Restart.Policy = plan.Never
	v.apply(t,
		job, broken, w.starting("slow.1"),
		w.sleeper("after-job.1", plan.Need{Service: "migrate", Condition: plan.Completed}),
		w.sleeper("after-broken.1", plan.Need{Service: "broken", Condition: plan.Completed}),
		w.sleeper("after-start.1", plan.Need{Service: "slow", Condition: plan.Started}),
		w.sleeper("after-ready.1", plan.Need{Service: "slow"}),
		w.sleeper("after-nothing.1", plan.Need{Service: "ghost"}),
	)
	v.await(t, status.Ready, "after-job.1", "after-start.1")
	v.await(t, status.Exited, "broken.1")
	for name, reason := range map[string]string{
		"after-broken.1": "needs broken completed: exited", "after-ready.1": "needs slow: starting",
		"after-nothing.1": "needs ghost: there is none",
	} {
		v.awaitThat(t, reason, func(i status.Instance) bool { return i.State == status.Pending && i.Reason == reason }, name)
	}
}

func TestRestartOfAServiceRollsOneInstanceAfterTheOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	names := []string{"a.1", "a.2", "a.3"}
	var before []int
	var specs []plan.Spec
	for _, name := range names {
		specs = append(specs, w.sleeper(name))
	}
	v.apply(t, specs...)
	v.await(t, status.Ready, names...)
	for _, i := range v.Instances() {
		before = append(before, i.PID)
	}
	ctx, cancel := patient()
	defer cancel()
	must(t, v.Restart(ctx, "a"))
	for n, i := range v.Instances() {
		if i.State != status.Ready || slices.Contains(before, i.PID) || i.Restarts != 0 {
			t.Errorf("%d: %+v", n, i)
		}
	}
	v.stop()
	v.neverTwoDown(t, names)
}

// neverTwoDown checks the events for a moment after all were ready in which two of the instances were not.
func (v *watched) neverTwoDown(t failer, names []string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	up := make(map[string]bool)
	rolling := false
	for _, e := range v.events {
		if !slices.Contains(names, e.Instance) {
			continue
		}
		up[e.Instance] = e.State == status.Ready
		down := 0
		for _, name := range names {
			if !up[name] {
				down++
			}
		}
		rolling = rolling || down == 0
		if rolling && down > 1 {
			t.Fatalf("%d of %d are down when %s is %s", down, len(names), e.Instance, e.State)
		}
	}
}
