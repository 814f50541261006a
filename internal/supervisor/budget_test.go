package supervisor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// gated is an instance that fails until its gate is opened; three starts are all it has.
func (w *world) gated(name, then string) plan.Spec {
	s := w.spec(name, "gated", w.path(name+".lock"), w.path(name+".gate"))
	s.Restart = plan.Restart{
		Delay: time.Millisecond, Max: time.Millisecond, Reset: time.Hour, Budget: 3, Window: time.Hour, Then: then, RetryAfter: 50 * time.Millisecond,
	}
	return s
}

func TestSpentBudgetFailsUntilAPersonStartsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	spec := w.gated("a.1", plan.Fail)
	first.apply(t, spec)
	i := first.await(t, status.Failed, "a.1")
	const reason = "exit status 1; given up after 3 starts in 1h, until hozo start a.1"
	if i.Reason != reason || i.Restarts != 2 {
		t.Errorf("%+v", i)
	}
	first.stop()

	// The next supervisor comes to the same end without another start.
	second := w.supervise(t)
	second.apply(t, spec)
	if i := second.await(t, status.Failed, "a.1"); i.Reason != reason || i.Restarts != 2 {
		t.Errorf("after a restart of the node: %+v", i)
	}
	w.open(t, "a.1.gate")
	ctx, cancel := patient()
	defer cancel()
	must(t, second.Start(ctx, "a.1"))
	second.await(t, status.Ready, "a.1")
}

func TestSpentBudgetIsTriedSlowlyAndRecovers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.gated("a.1", plan.Slow)
	v.apply(t, spec)
	slow := func(i status.Instance) bool { return i.State == status.Failed && i.Restarts >= 4 }
	i := v.awaitThat(t, "tried slowly", slow, "a.1")
	if !strings.HasPrefix(i.Reason, "exit status 1; after 3 starts in 1h it is tried every 50ms") {
		t.Errorf("%+v", i)
	}
	w.open(t, "a.1.gate")
	v.await(t, status.Ready, "a.1")
}

func TestBudgetIsKeptOverARestartOfTheNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.gated("a.1", plan.Fail)
	spec.Restart.Delay, spec.Restart.Max = 300*time.Millisecond, 300*time.Millisecond
	restarts := -1
	for n := 0; ; n++ {
		v := w.supervise(t)
		v.apply(t, spec)
		i := v.awaitThat(t, "fallen", func(i status.Instance) bool {
			return i.State == status.Failed || i.State == status.Backoff && i.Restarts > restarts
		}, "a.1")
		v.stop() // in its backoff, so that the start is the next supervisor's
		restarts = i.Restarts
		if i.State == status.Failed {
			break
		}
		if n > 3 {
			t.Fatalf("still started after %d supervisors: %+v", n, i)
		}
	}
	if restarts != 2 {
		t.Errorf("it was restarted %d times", restarts)
	}
}
