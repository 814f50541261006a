package supervisor_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func TestInstanceBeyondItsMemoryShowsThatAndItsLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.spec("a.1", "glutton")
	spec.Limits.Memory = 64 << 20
	spec.Restart.Policy = plan.Never
	v.apply(t, spec, w.sleeper("b.1"))
	b := v.await(t, status.Ready, "b.1")
	i := v.await(t, status.Exited, "a.1")
	if strings.HasPrefix(i.Reason, "exit status 1") {
		t.Skip("this host has no memory controller: " + i.LimitsUnmet)
	}
	if i.Reason != "OOM: killed at its memory limit of 64 MiB" {
		t.Errorf("%+v", i)
	}
	if now := v.get(t, "b.1"); now.PID != b.PID || now.State != status.Ready {
		t.Errorf("its sibling is %+v", now)
	}
}

func TestChangedLimitsReachTheProcessThatRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	v.apply(t, spec)
	before := v.await(t, status.Ready, "a.1")
	files := uint64(77)
	spec.Limits.Nofile = &files
	steps := v.apply(t, spec)
	if len(steps) != 1 || steps[0].Op != plan.OpUpdate {
		t.Errorf("the change does %v", steps)
	}
	limits := func() string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", before.PID))
		must(t, err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Max open files") {
				return strings.Join(strings.Fields(line)[3:5], " ")
			}
		}
		return ""
	}
	if got := limits(); got != "77 77" {
		t.Errorf("it may open %s files", got)
	}
	v.stop() // the next supervisor finds what runs
	files = 66
	next := w.supervise(t)
	next.apply(t, spec)
	if now := next.await(t, status.Ready, "a.1"); now.PID != before.PID {
		t.Errorf("before %+v, now %+v", before, now)
	}
	if got := limits(); got != "66 66" {
		t.Errorf("it may open %s files after the next supervisor", got)
	}
}

// What the host cannot keep is shown for as long as the process runs.
func TestUnmetLimitIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	files := ^uint64(0) // no kernel allows that many
	spec.Limits.Nofile = &files
	v.apply(t, spec)
	if i := v.await(t, status.Ready, "a.1"); !strings.HasPrefix(i.LimitsUnmet, "nofile: it may not be set") || i.LimitsFix == "" {
		t.Errorf("%+v", i)
	}
	spec.Limits.Nofile = nil
	v.apply(t, spec)
	if i := v.await(t, status.Ready, "a.1"); i.LimitsUnmet != "" {
		t.Errorf("%+v", i)
	}
}
