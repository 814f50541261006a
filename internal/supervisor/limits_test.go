package supervisor_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/supervisor"
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

// slowEvents is a keeper whose events are on their way until open is closed.
type slowEvents struct {
	supervisor.Keeper
	open chan struct{}
}

func (k slowEvents) Events(ctx context.Context) (<-chan keeper.Event, error) {
	events, err := k.Keeper.Events(ctx)
	if err != nil {
		return nil, err
	}
	late := make(chan keeper.Event)
	go func() {
		defer close(late)
		select {
		case <-k.open:
		case <-ctx.Done():
			return
		}
		for e := range events {
			select {
			case late <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return late, nil
}

// What the keeper said before the limits changed is heard after it, and undoes nothing.
func TestEventsFromBeforeAChangeOfLimitsDoNotUndoIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := slowEvents{w.client, make(chan struct{})}
	v := w.superviseBy(t, slow)
	spec := w.spec("a.1", "notifier", w.path("gate"))
	must(t, syscall.Mkfifo(w.path("gate"), 0o600))
	spec.Notify = true
	files := ^uint64(0) // no kernel allows that many
	spec.Limits.Nofile = &files
	v.apply(t, spec)
	if i := v.await(t, status.Ready, "a.1"); i.LimitsUnmet == "" {
		t.Errorf("%+v", i)
	}
	gate, err := os.OpenFile(w.path("gate"), os.O_WRONLY, 0)
	must(t, err)
	defer gate.Close()
	waitFor(t, "the keeper to hear it", func() bool {
		all, _, err := w.client.List(t.Context())
		must(t, err)
		return all[0].Status == "at work"
	})
	spec.Limits.Nofile = nil
	v.apply(t, spec)
	if i := v.get(t, "a.1"); i.LimitsUnmet != "" || i.Status != "" {
		t.Errorf("%+v", i)
	}
	close(slow.open)
	i := v.awaitThat(t, "at work", func(i status.Instance) bool { return i.Status == "at work" }, "a.1")
	if i.LimitsUnmet != "" || i.LimitsFix != "" {
		t.Errorf("%+v", i)
	}
}
