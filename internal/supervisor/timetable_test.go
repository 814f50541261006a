package supervisor_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// scheduled is an instance that writes its ticks to the file NAME.ticks and ends.
func (w *world) scheduled(name string, s plan.Schedule, more ...string) plan.Spec {
	spec := w.spec(name, "append", append([]string{w.path(name + ".ticks"), "0"}, more...)...)
	spec.Restart.Policy, spec.Schedule = plan.Never, &s
	return spec
}

func (w *world) ticks(t failer, name string) []string {
	content, err := os.ReadFile(w.path(name + ".ticks"))
	if os.IsNotExist(err) {
		return nil
	}
	must(t, err)
	return strings.Fields(string(content))
}

// awaitTicks waits for what a program writes once it has been started; there is no event to wait on.
func (w *world) awaitTicks(t failer, name string, n int) {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for len(w.ticks(t, name)) < n {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s ran for %v, not %d ticks", name, w.ticks(t, name), n)
		}
	}
}

func ran(n int, w *world, t failer, name string) func(status.Instance) bool {
	return func(i status.Instance) bool { return i.State == status.Exited && len(w.ticks(t, name)) >= n }
}

// noon is a day without a change of clocks.
func noon(hour, minute int, second float64) time.Time {
	return time.Date(2031, 5, 6, hour, minute, 0, 0, time.UTC).Add(time.Duration(second * float64(time.Second)))
}

func checkTicks(t *testing.T, got []string, want ...time.Time) {
	t.Helper()
	var text []string
	for _, tick := range want {
		text = append(text, tick.Format(time.RFC3339Nano))
	}
	if strings.Join(got, " ") != strings.Join(text, " ") {
		t.Errorf("ran for %v, want %v", got, text)
	}
}

func TestScheduledInstanceRunsAtItsTicksAndNotAtTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(noon(11, 59, 58))
	v := w.supervise(t)
	v.apply(t, w.scheduled("report.1", plan.Schedule{Cron: "0 * * * *", Zone: "UTC"}))
	i := v.await(t, status.Scheduled, "report.1")
	if !i.Next.Equal(noon(12, 0, 0)) || i.PID != 0 {
		t.Errorf("%+v", i)
	}
	i = v.awaitThat(t, "run", ran(1, w, t, "report.1"), "report.1")
	if i.LastResult != "exit status 0" || i.LastSeconds <= 0 || i.LastRun.IsZero() {
		t.Errorf("%+v", i)
	}
	v.awaitThat(t, "planned anew", func(i status.Instance) bool { return i.Next.Equal(noon(13, 0, 0)) }, "report.1")
	checkTicks(t, w.ticks(t, "report.1"), noon(12, 0, 0))
	if info, err := os.Stat(w.path("schedule.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// A person may run it in between; that is no tick.
	ctx, cancel := patient()
	defer cancel()
	must(t, v.Start(ctx, "report.1"))
	v.awaitThat(t, "ended", func(i status.Instance) bool { return i.State == status.Exited }, "report.1")
	if i := v.get(t, "report.1"); !i.Next.Equal(noon(13, 0, 0)) {
		t.Errorf("next is %s", i.Next)
	}
}

func TestJumpsOfTheClockNeitherDoubleNorLoseATick(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(noon(11, 59, 59))
	v := w.supervise(t)
	v.apply(t, w.scheduled("report.1", plan.Schedule{Cron: "0 * * * *", Zone: "UTC"}))
	v.awaitThat(t, "run at 12", ran(1, w, t, "report.1"), "report.1")
	w.set(noon(13, 0, 30)) // an hour forward, over a tick
	v.awaitThat(t, "run at 13", ran(2, w, t, "report.1"), "report.1")
	w.set(noon(11, 59, 58)) // an hour back: 12 and 13 come again
	v.awaitThat(t, "planned for 14", func(i status.Instance) bool { return i.Next.Equal(noon(14, 0, 0)) }, "report.1")
	w.set(noon(13, 59, 59.5))
	v.awaitThat(t, "run at 14", ran(3, w, t, "report.1"), "report.1")
	checkTicks(t, w.ticks(t, "report.1"), noon(12, 0, 0), noon(13, 0, 0), noon(14, 0, 0))
	w.set(noon(4, 30, 0)) // much further back: the clock was wrong
	v.awaitThat(t, "planned for 5", func(i status.Instance) bool { return i.Next.Equal(noon(5, 0, 0)) }, "report.1")
	w.set(noon(4, 59, 59.5))
	v.awaitThat(t, "run at 5", ran(4, w, t, "report.1"), "report.1")
}

func TestOverlapPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(noon(11, 59, 59))
	v := w.supervise(t)
	var specs []plan.Spec
	for _, overlap := range []string{plan.Skip, plan.Queue, plan.Allow} {
		name := overlap + ".1"
		s := w.scheduled(name, plan.Schedule{Cron: "0 * * * *", Zone: "UTC", Overlap: overlap}, w.path(name+".lock"))
		if overlap == plan.Allow {
			s.Argv = []string{"/bin/sh", "-c", `echo "$HOZO_TICK" >> "$0"; exec sleep 1000`, w.path(name + ".ticks")}
		}
		specs = append(specs, s)
	}
	v.apply(t, specs...)
	all := []string{"skip.1", "queue.1", "allow.1"}
	v.await(t, status.Ready, all...)
	next := func(at time.Time) {
		t.Helper()
		v.awaitThat(t, "planned for "+at.String(), func(i status.Instance) bool { return i.Next.Equal(at) }, all...)
	}
	next(noon(13, 0, 0))
	w.set(noon(13, 0, 1))
	next(noon(14, 0, 0))
	w.set(noon(14, 0, 1))
	next(noon(15, 0, 0))
	if i := v.get(t, "allow.1"); i.Overlapping != 2 {
		t.Errorf("%+v", i)
	}
	for _, name := range all[:2] {
		appears(t, w.path(name+".lock.up"))
		must(t, w.client.Signal(t.Context(), name, 15, false))
	}
	v.awaitThat(t, "ended", func(i status.Instance) bool { return i.State == status.Exited }, "skip.1")
	w.awaitTicks(t, "queue.1", 2)
	checkTicks(t, w.ticks(t, "skip.1"), noon(12, 0, 0))
	checkTicks(t, w.ticks(t, "queue.1"), noon(12, 0, 0), noon(14, 0, 0))
	ctx, cancel := patient()
	defer cancel()
	w.awaitTicks(t, "allow.1", 3)
	must(t, v.Stop(ctx, "allow"))
	v.awaitThat(t, "alone", func(i status.Instance) bool { return i.Overlapping == 0 }, "allow.1")
	if got := w.ticks(t, "allow.1"); len(got) != 3 {
		t.Errorf("ran for %v", got)
	}
}

func TestTicksWhileNobodyWatchedAreSkippedOrRunOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(noon(11, 59, 59))
	specs := []plan.Spec{
		w.scheduled("skip.1", plan.Schedule{Cron: "0 * * * *", Zone: "UTC"}),
		w.scheduled("once.1", plan.Schedule{Cron: "0 * * * *", Zone: "UTC", Missed: plan.RunOnce}),
	}
	v := w.supervise(t)
	v.apply(t, specs...)
	v.awaitThat(t, "run", ran(1, w, t, "skip.1"), "skip.1")
	v.awaitThat(t, "run", ran(1, w, t, "once.1"), "once.1")
	v.stop()
	w.set(noon(15, 30, 0))
	v = w.supervise(t)
	v.apply(t, specs...)
	v.awaitThat(t, "run late", ran(2, w, t, "once.1"), "once.1")
	v.awaitThat(t, "planned", func(i status.Instance) bool { return i.Next.Equal(noon(16, 0, 0)) }, "skip.1", "once.1")
	v.stop()
	w.set(noon(16, 0, 20)) // a moment late is not missed
	v = w.supervise(t)
	v.apply(t, specs...)
	v.awaitThat(t, "run", ran(2, w, t, "skip.1"), "skip.1")
	v.awaitThat(t, "run", ran(3, w, t, "once.1"), "once.1")
	checkTicks(t, w.ticks(t, "skip.1"), noon(12, 0, 0), noon(16, 0, 0))
	checkTicks(t, w.ticks(t, "once.1"), noon(12, 0, 0), noon(15, 0, 0), noon(16, 0, 0))
}

func TestSupervisorsThatEndAroundTicksStartNoneTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.scheduled("beat.1", plan.Schedule{Every: time.Second})
	for n := range 12 {
		v := w.supervise(t)
		v.apply(t, spec)
		before := len(w.ticks(t, "beat.1"))
		v.awaitThat(t, "run again", func(i status.Instance) bool { return len(w.ticks(t, "beat.1")) > before || n%3 == 0 && i.PID > 0 }, "beat.1")
		v.stop()
	}
	seen := map[string]bool{}
	for _, tick := range w.ticks(t, "beat.1") {
		if seen[tick] {
			t.Errorf("%s was run twice", tick)
		}
		seen[tick] = true
	}
	if len(seen) < 8 {
		t.Errorf("only %d ticks", len(seen))
	}
}

// There is no run yet that the keeper would know, and still the next supervisor knows that a person stopped it.
func TestWhatWasStoppedBeforeItsFirstRunStaysStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(noon(11, 59, 50))
	report := w.scheduled("report.1", plan.Schedule{Cron: "0 * * * *", Zone: "UTC"})
	web := w.sleeper("web.1", plan.Need{Service: "db"})
	db := w.sleeper("db.1")
	db.Health = &plan.Health{Notify: true, Grace: patience} // which it never says
	ctx, cancel := patient()
	defer cancel()
	first := w.supervise(t)
	first.apply(t, report, web, db)
	must(t, first.Stop(ctx, "report"))
	must(t, first.Stop(ctx, "web"))
	first.stop()

	second := w.supervise(t)
	second.apply(t, report, web, db)
	second.await(t, status.Stopped, "report.1", "web.1")
	if i := second.get(t, "report.1"); !i.Next.IsZero() {
		t.Errorf("%+v", i)
	}
	must(t, second.Start(ctx, "report"))
	second.awaitThat(t, "planned", func(i status.Instance) bool { return !i.Next.IsZero() }, "report.1")
	second.stop()

	third := w.supervise(t)
	third.apply(t, report, web, db)
	third.awaitThat(t, "planned", func(i status.Instance) bool { return !i.Next.IsZero() }, "report.1")
	third.await(t, status.Stopped, "web.1")
}

func TestStoppedScheduleStaysStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(noon(11, 59, 50))
	v := w.supervise(t)
	spec := w.scheduled("report.1", plan.Schedule{Cron: "0 * * * *", Zone: "UTC"})
	v.apply(t, spec)
	ctx, cancel := patient()
	defer cancel()
	must(t, v.Stop(ctx, "report"))
	if i := v.get(t, "report.1"); i.State != status.Stopped || !i.Next.IsZero() {
		t.Errorf("%+v", i)
	}
	w.set(noon(12, 30, 0))
	must(t, v.Start(ctx, "report"))
	v.awaitThat(t, "planned", func(i status.Instance) bool { return i.Next.Equal(noon(13, 0, 0)) }, "report.1")
	// Taking the schedule away makes it an ordinary service.
	must(t, v.Stop(ctx, "report"))
	spec.Schedule = nil
	spec.Env = append(spec.Env, "CHANGED=1")
	v.apply(t, spec)
	must(t, v.Start(ctx, "report"))
	v.awaitThat(t, "run without a schedule", func(i status.Instance) bool { return i.State == status.Exited && i.Next.IsZero() }, "report.1")
}
