package task_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// thumb is a kind with a result.
var thumb = task.NewResultKind[image, string](kindName, quick)

func TestResultIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, err := thumb.Enqueue(testkit.Context(t), w.conn, image{"a.png"}, task.In(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	runs(t, task.NewResultWorker(w.conn, thumb, func(_ context.Context, one task.Task[image]) (string, error) {
		return "small/" + one.Args.Path, nil
	}, task.WorkerConfig{}))
	if got, err := h.Wait(testkit.Context(t)); err != nil || got != "small/a.png" {
		t.Errorf("Wait = %q, %v", got, err)
	}
	w.waitQueued(t, 0)
}

func TestCancelledTaskIsNotRunAndARunningOneEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	started, ended := make(chan string, 4), make(chan error, 4) // one a task
	later, err := thumb.Enqueue(ctx, w.conn, image{"later.png"}, task.In(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := thumb.Enqueue(ctx, w.conn, image{"waiting.png"})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []task.ResultHandle[string]{later, waiting} {
		if err := h.Cancel(ctx); err != nil {
			t.Fatal(err)
		}
	}
	runs(t, task.NewResultWorker(w.conn, thumb, func(ctx context.Context, one task.Task[image]) (string, error) {
		started <- one.Args.Path
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return "", ctx.Err()
	}, task.WorkerConfig{}))
	running, err := thumb.Enqueue(ctx, w.conn, image{"running.png"})
	if err != nil {
		t.Fatal(err)
	}
	if path := testkit.Wait(t, started); path != "running.png" {
		t.Errorf("%s was run", path)
	}
	if err := running.Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	if cause := testkit.Wait(t, ended); cause == nil || errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("the handler ended by %v", cause)
	}
	for _, h := range []task.ResultHandle[string]{later, waiting, running} {
		if _, err := h.Wait(ctx); fault.Code(err) != task.CodeCancelled {
			t.Errorf("%s: %v", h.ID, err)
		}
	}
	w.waitQueued(t, 0)
}

func TestUniqueTaskIsStoredOnceUntilItIsDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	first, err := thumb.Enqueue(ctx, w.conn, image{"a.png"}, task.Unique("a"))
	if err != nil || first.Duplicate {
		t.Fatalf("first: %+v, %v", first, err)
	}
	second, err := thumb.Enqueue(ctx, w.conn, image{"a.png"}, task.Unique("a"))
	if err != nil || !second.Duplicate || second.ID != first.ID {
		t.Fatalf("second: %+v, %v", second, err)
	}
	if n := w.queued(t); n != 1 {
		t.Errorf("%d tasks are queued", n)
	}
	runs(t, task.NewResultWorker(w.conn, thumb, func(context.Context, task.Task[image]) (string, error) { return "", nil }, task.WorkerConfig{}))
	w.waitQueued(t, 0)
	third, err := thumb.Enqueue(ctx, w.conn, image{"a.png"}, task.Unique("a"))
	if err != nil || third.Duplicate {
		t.Errorf("third: %+v, %v", third, err)
	}
	if _, err := third.Wait(ctx); err != nil {
		t.Error(err)
	}
}

func TestSnoozeSpendsNoAttemptAndLongRetriesWaitInTheBroker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tries := make(chan int, 4) // one a try
	kind := task.NewKind[image](kindName, task.Config{Attempts: 2, Backoff: 5 * time.Second})
	snoozed := false
	runs(t, task.NewWorker(w.conn, kind, func(_ context.Context, one task.Task[image]) error {
		tries <- one.Attempt
		switch {
		case one.Attempt == 1 && !snoozed:
			snoozed = true // one handler at a time
			return task.Snooze(2100 * time.Millisecond)
		case one.Attempt == 1:
			return errors.New("not yet")
		}
		return nil
	}, task.WorkerConfig{Concurrency: 1}))
	enqueue(t, w, "a.png")
	for i, want := range []int{1, 1, 2} {
		if got := testkit.Wait(t, tries); got != want {
			t.Errorf("try %d is attempt %d, want %d", i+1, got, want)
		}
	}
	w.waitQueued(t, 0)
}

func TestBatchHandlerSettlesEachTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sizes := make(chan int, 16) // more than batches
	for range 7 {
		enqueue(t, w, "a.png")
	}
	enqueue(t, w, "bad.png")
	runs(t, task.NewBatchWorker(w.conn, task.NewKind[image](kindName, quick), func(_ context.Context, all []task.Task[image]) error {
		sizes <- len(all)
		outcomes := make(task.BatchError, len(all))
		for i, one := range all {
			if one.Args.Path == "bad.png" {
				outcomes[i] = task.Reject(errors.New("no such image"))
			}
		}
		return outcomes
	}, task.WorkerConfig{Concurrency: 1, Batch: 8, Linger: time.Second}))
	if dead := w.waitDead(t); string(dead.Data) != `{"Path":"bad.png"}` {
		t.Errorf("dead: %s", dead.Data)
	}
	if n := testkit.Wait(t, sizes); n != 8 {
		t.Errorf("the batch has %d tasks", n)
	}
}
