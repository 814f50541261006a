package task_test

import (
	"context"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

func TestIDIsTakenWhileARecordOrACopyOfItIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	kind := task.NewResultKind[image, string](kindName, far)
	again := func(when string) {
		t.Helper()
		for _, opts := range [][]task.Option{{task.ID("a")}, {task.ID("a"), task.In(time.Hour)}, {task.ID("a"), task.WithPriority(task.Low)}} {
			if h, err := kind.Enqueue(ctx, w.conn, image{"ok"}, opts...); err != nil || !h.Duplicate || h.ID != "a" {
				t.Errorf("%s: %+v, %v", when, h, err)
			}
		}
	}
	h, err := kind.Enqueue(ctx, w.conn, image{"ok"}, task.ID("a"))
	if err != nil || h.Duplicate {
		t.Fatalf("first: %+v, %v", h, err)
	}
	w.Restart(t) // it forgets which messages it knows that are not stored any more
	testkit.Eventually(t, w.conn.Connected, "the service is connected again")
	again("waiting")
	runs(t, task.NewResultWorker(w.conn, kind, func(_ context.Context, one task.Task[image]) (string, error) {
		return act(one.Args.Path, "worker")
	}, task.WorkerConfig{}))
	if got, err := h.Wait(ctx); err != nil || got != "worker" {
		t.Fatalf("Wait = %q, %v", got, err)
	}
	w.waitQueued(t, 0)
	w.Restart(t)
	testkit.Eventually(t, w.conn.Connected, "the service is connected again")
	again("done")
	if n := w.queued(t); n != 0 {
		t.Errorf("%d tasks are queued", n)
	}
}

func TestFullQueueRefusesAndDropsNothing(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	w := &world{TestBroker: b}
	conn, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: b.Grant(t, boundedGrant(10))})
	if err != nil {
		t.Fatal(err)
	}
	w.conn = conn
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // the broker is there until the end
	ctx := testkit.Context(t)
	kind := task.NewKind[image](kindName, quick)
	for i := range 10 {
		var opts []task.Option
		if i%2 == 1 {
			opts = append(opts, task.In(time.Hour)) // they count as well
		}
		if _, err := kind.Enqueue(ctx, conn, image{"ok"}, opts...); err != nil {
			t.Fatalf("task %d: %v", i, err)
		}
	}
	for range 3 {
		if _, err := kind.Enqueue(ctx, conn, image{"ok"}); fault.Code(err) != task.CodeQueueFull {
			t.Errorf("beyond the bound: %v", err)
		}
	}
	if n := w.queued(t); n != 10 {
		t.Errorf("%d tasks are queued", n)
	}
	runs(t, task.NewWorker(conn, kind, func(context.Context, task.Task[image]) error { return nil }, task.WorkerConfig{}))
	w.waitQueued(t, 5)
	if _, err := kind.Enqueue(ctx, conn, image{"ok"}); err != nil {
		t.Errorf("with room again: %v", err)
	}
	w.waitQueued(t, 5)
}
