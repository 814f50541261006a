package task_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

func TestEnqueueStoresOneTaskAnID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	kind := task.NewKind[image](kindName, task.Config{})
	for i := range 3 {
		h, err := kind.Enqueue(ctx, w.conn, image{"a.png"}, task.ID("a"))
		if err != nil || h.ID != "a" || h.Duplicate != (i > 0) {
			t.Fatalf("Enqueue = %+v, %v", h, err)
		}
	}
	first, err := kind.Enqueue(ctx, w.conn, image{"a.png"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := kind.Enqueue(ctx, w.conn, image{"a.png"})
	if err != nil {
		t.Fatal(err)
	}
	if first.ID == second.ID {
		t.Errorf("two tasks have the id %s", first.ID)
	}
	if n := w.queued(t); n != 3 {
		t.Errorf("%d tasks are queued, want 3", n)
	}
}

func TestEnqueueRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	kind := task.NewKind[image](kindName, task.Config{})
	for _, id := range []string{"", "two words", "line\nbreak", "ü", strings.Repeat("x", 257)} {
		if _, err := kind.Enqueue(ctx, w.conn, image{}, task.ID(id)); fault.Code(err) != task.CodeBadID {
			t.Errorf("id %q: %v", id, err)
		}
	}
	_, err := task.NewKind[image]("other.kind", task.Config{}).Enqueue(ctx, w.conn, image{})
	if f, ok := fault.As(err); !ok || f.Code != bus.CodeNoRoute || !strings.Contains(f.Fix, "enqueues of service images") {
		t.Errorf("a kind that is not granted: %v", err)
	}
	_, err = kind.Enqueue(ctx, w.conn, image{strings.Repeat("x", 9<<20)})
	if fault.Code(err) != bus.CodeTooLarge {
		t.Errorf("large arguments: %v", err)
	}
	if _, err := task.NewKind[func()](kindName, task.Config{}).Enqueue(ctx, w.conn, func() {}); err == nil {
		t.Error("a function was encoded")
	}
}

func TestStageEnqueuesOncePerEventHoweverOftenItIsHandled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(testkit.Context(t))
	topic := bus.NewTopic[image]("events.raw")
	kind := task.NewKind[image](kindName, task.Config{})
	handled := make(chan int, 8) // fewer tries than that
	stage, err := bus.NewStage(w.conn, topic, func(_ context.Context, e bus.Event[image], out *bus.Out) error {
		for _, path := range []string{e.Value.Path, e.Value.Path, "small/" + e.Value.Path} { // the second is the first
			if err := kind.EnqueueFrom(out, image{path}); err != nil {
				return err
			}
		}
		if err := task.NewKind[image]("other.kind", task.Config{}).EnqueueFrom(out, image{}); fault.Code(err) != bus.CodeNoRoute {
			t.Errorf("a kind that is not granted: %v", err)
		}
		handled <- e.Attempt
		if e.Attempt == 1 {
			return context.DeadlineExceeded // try again
		}
		return nil
	}, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := stage.Run(ctx); err != nil {
			t.Errorf("stage: %v", err)
		}
	})
	defer wg.Wait()
	defer cancel()
	event, err := topic.Publish(ctx, w.conn, image{"a.png"})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Wait(t, handled)
	testkit.Wait(t, handled)
	w.waitQueued(t, 2)

	tasks := make(chan task.Task[image])
	worker := runs(t, task.NewWorker(w.conn, kind, func(_ context.Context, got task.Task[image]) error {
		tasks <- got
		return nil
	}, task.WorkerConfig{}))
	paths := map[string]bool{}
	for range 2 {
		got := testkit.Wait(t, tasks)
		paths[got.Args.Path] = true
		if !strings.HasPrefix(got.ID, event.String()+":") {
			t.Errorf("task id %q is not made from event %s", got.ID, event)
		}
	}
	if !paths["a.png"] || !paths["small/a.png"] {
		t.Errorf("tasks were enqueued for %v", paths)
	}
	w.waitQueued(t, 0)
	if err := worker.stop(); err != nil {
		t.Error(err)
	}
}

func TestRawArgumentsPassThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kind := task.NewKind[json.RawMessage](kindName, task.Config{})
	if _, err := kind.Enqueue(testkit.Context(t), w.conn, json.RawMessage(`{"Path": "as it is"}`)); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	runs(t, task.NewWorker(w.conn, task.NewKind[[]byte](kindName, task.Config{}), func(_ context.Context, t task.Task[[]byte]) error {
		got <- string(t.Args)
		return nil
	}, task.WorkerConfig{}))
	if args := testkit.Wait(t, got); args != `{"Path": "as it is"}` {
		t.Errorf("arguments = %s", args)
	}
}
