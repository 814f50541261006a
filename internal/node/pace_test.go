package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

const paceServices = `  notes:
    run: "%[1]s notetask"
    handles: [note]
    env: { OUT: "%[2]s" }
  feeder:
    run: "%[1]s idle"
    enqueues: [note]
    publishes: [events.raw]
`

// Limits come and go while everything runs on, and what waits when they go is run.
func TestLimitsOfAQueueChangeWhileItRuns(t *testing.T) {
	t.Parallel()
	out := filepath.Join(testkit.TempDir(t), "notes")
	p := up(t, paceServices, out)
	apply := func(queues string) {
		t.Helper()
		steps, err := p.rewrite(t, paceServices+queues, out)
		if err != nil {
			t.Fatal(err)
		}
		if len(steps) != 1 || steps[0].Name != "queue note" || steps[0].Op != plan.OpUpdate {
			t.Errorf("%q is applied by %v", queues, steps)
		}
	}
	done := func() int {
		data, err := os.ReadFile(out)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Count(string(data), "\n")
	}
	grant, err := wire.ReadGrant(filepath.Join(p.state, "grants", "feeder.1.json"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	conn, err := bus.Connect(ctx, bus.Config{URL: p.bus(t), Grant: grant})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }() // it has nothing to store
	enqueue := func(n int) {
		t.Helper()
		for range n {
			if _, err := noteTask.Enqueue(ctx, conn, map[string]any{"to": "a"}, task.Key("a")); err != nil {
				t.Fatal(err)
			}
		}
	}
	apply("queues: { note: { per_key: { rate: 1/24h } } }\n")
	// Those that are enqueued before everybody knows are run or wait; of the others one is run.
	testkit.Eventually(t, func() bool {
		enqueue(1)
		s := p.status(t)
		return len(s.Queues) == 1 && s.Queues[0].Held > 2
	}, "tasks wait for the limit")
	pid := service(p.status(t), "notes").Instances[0].PID
	before := done()
	enqueue(5)
	apply("queues: { note: { per_key: { concurrency: 2 } } }\n")
	testkit.Eventually(t, func() bool { return done() > before+5 && p.status(t).Queues[0].Held == 0 }, "the other limit lets them go")
	apply("queues: { note: { per_key: { rate: 1/24h } } }\n")
	before = done()
	enqueue(5)
	apply("")
	testkit.Eventually(t, func() bool { return done() >= before+5 && p.status(t).Queues[0].Held == 0 }, "without limits everything is run")
	if now := service(p.status(t), "notes").Instances[0].PID; now != pid {
		t.Errorf("the worker was replaced: %d is now %d", pid, now)
	}
}
