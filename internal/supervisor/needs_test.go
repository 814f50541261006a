package supervisor_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func TestWhatNeedsItSoStartsAgainAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	db, page := w.sleeper("db.1"), w.sleeper("page.1")
	follower := w.sleeper("api.1", plan.Need{Service: "db", Restart: true})
	indifferent := w.sleeper("log.1", plan.Need{Service: "db"})
	page.Needs = []plan.Need{{Service: "api", Restart: true}} // two steps away
	first.apply(t, db, follower, indifferent, page)
	all := []string{"db.1", "api.1", "log.1", "page.1"}
	first.await(t, status.Ready, all...)
	before := first.pids()
	ctx, cancel := patient()
	defer cancel()
	must(t, first.Restart(ctx, "db"))
	anew := func(v *watched, before map[string]int) {
		t.Helper()
		v.awaitThat(t, "started again", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before[i.Name] }, "db.1", "api.1", "page.1")
		if i := v.get(t, "log.1"); i.PID != before["log.1"] {
			t.Errorf("one that does not ask for it was restarted: %+v", i)
		}
	}
	anew(first, before)
	before = first.pids()
	appears(t, w.path("db.1.lock.up"))
	must(t, syscall.Kill(before["db.1"], syscall.SIGKILL)) // a crash counts as well
	anew(first, before)

	// A second instance is no restart, and neither is a new supervisor.
	before = first.pids()
	second := w.sleeper("db.2")
	first.apply(t, db, second, follower, indifferent, page)
	first.await(t, status.Ready, "db.2")
	first.stop()
	v := w.supervise(t)
	v.apply(t, db, second, follower, indifferent, page)
	v.await(t, status.Ready, append(all, "db.2")...)
	if i := v.get(t, "api.1"); i.PID != before["api.1"] {
		t.Errorf("restarted without reason: %+v", i)
	}
	v.stop()

	// What happened while nobody watched is made up for.
	must(t, syscall.Kill(before["db.1"], syscall.SIGKILL))
	v = w.supervise(t)
	v.apply(t, db, second, follower, indifferent, page)
	anew(v, before)
}

func TestInstanceThatWaitsAnswersAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	v.apply(t, w.starting("a.1"), w.sleeper("b.1", plan.Need{Service: "a"}))
	v.awaitThat(t, "waiting", func(i status.Instance) bool { return i.State == status.Pending && i.Reason != "" }, "b.1")
	ctx, cancel := patient()
	defer cancel()
	answered := func(what string, call func(context.Context, string) error) error {
		t.Helper()
		began := time.Now()
		err := call(ctx, "b")
		t.Logf("%s answers within %s", what, time.Since(began))
		return err
	}
	for range 3 {
		if err := answered("restart", v.Restart); fault.Code(err) != "supervisor/waits" || !strings.Contains(err.Error(), "needs a: ") {
			t.Errorf("restart says %v", err)
		}
	}
	must(t, answered("stop", v.Stop))
	must(t, answered("stop", v.Stop))
	if i := v.get(t, "b.1"); i.State != status.Stopped {
		t.Errorf("%+v", i)
	}
}
