package task_test

import (
	"context"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

func TestStopFinishesWhatRunsAndTakesNothingNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	started, release := make(chan struct{}, 2), make(chan struct{}) // started: both tasks, if the second were taken
	worker := runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(ctx context.Context, _ task.Task[image]) error {
		started <- struct{}{}
		<-release
		return ctx.Err()
	}, task.WorkerConfig{Concurrency: 1}))
	enqueue(t, w, "a.png")
	testkit.Wait(t, started)
	enqueue(t, w, "b.png")
	worker.cancel()
	close(release)
	if err := worker.stop(); err != nil {
		t.Error(err)
	}
	if done, n := w.conn.Counters().Tasks.Load(), w.queued(t); done != 1 || n != 1 {
		t.Errorf("%d tasks are done and %d queued", done, n)
	}
}

func TestStopGivesBackWhatOutlivesTheGrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	started := make(chan task.Task[image], 1)
	kind := task.NewKind[image](kindName, task.Config{Attempts: 1, Backoff: time.Hour}) // a failure would be final
	hang := func(ctx context.Context, one task.Task[image]) error {
		started <- one
		<-ctx.Done()
		return ctx.Err()
	}
	worker := runs(t, task.NewWorker(w.conn, kind, hang, task.WorkerConfig{DrainGrace: 50 * time.Millisecond}))
	enqueue(t, w, "a.png")
	testkit.Wait(t, started)
	if err := worker.stop(); err != nil {
		t.Error(err)
	}
	other := w.join(t)
	runs(t, task.NewWorker(other, kind, func(_ context.Context, one task.Task[image]) error {
		started <- one
		return nil
	}, task.WorkerConfig{}))
	begin := time.Now()
	if one := testkit.Wait(t, started); one.Attempt != 1 {
		t.Errorf("given back: %+v", one)
	}
	if waited := time.Since(begin); waited > 4*time.Second {
		t.Errorf("the task came back after %v: it was not given back but missed", waited)
	}
	w.waitQueued(t, 0)
}
