package task_test

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

func TestStoppedWorkerThatWakesUpChangesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ path, plain string }{{"ok", ""}, {"fail", ""}, {"reject", ""}, {"ok", "1"}, {"fail", "1"}} {
		t.Run(test.path+test.plain, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx := testkit.Context(t)
			cfg := far
			if test.plain != "" {
				cfg = quick
			}
			kind := task.NewKind[image](kindName, cfg)
			h, err := kind.Enqueue(ctx, w.conn, image{test.path})
			if err != nil {
				t.Fatal(err)
			}
			release := testkit.TempDir(t) + "/release"
			zombie := w.child(t, "actor", envRelease+"="+release, envPlain+"="+test.plain)
			testkit.Eventually(t, func() bool { return strings.Contains(zombie.Output(), "started") }, "the child has the task")
			zombie.Signal(t, syscall.SIGSTOP)
			started, finish := make(chan int, 8), make(chan struct{}) // more than the tries
			runs(t, task.NewWorker(w.conn, kind, func(ctx context.Context, one task.Task[image]) error {
				started <- one.Attempt
				select {
				case <-finish:
				case <-ctx.Done():
				}
				return ctx.Err()
			}, task.WorkerConfig{Concurrency: 2}))
			if n := testkit.Wait(t, started); n != 1 {
				t.Errorf("attempt %d is run", n)
			}
			if err := os.WriteFile(release, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			zombie.Signal(t, syscall.SIGCONT)
			zombie.Signal(t, syscall.SIGTERM)
			testkit.Wait(t, zombie.Done) // it has told how its attempt ended
			if s, err := h.Status(ctx); err != nil || s.State != task.Running || s.Error != "" || w.queued(t) != 1 {
				t.Errorf("after the zombie the task is %+v, %v, and %d are queued", s, err, w.queued(t))
			}
			close(finish)
			w.waitQueued(t, 0)
			if s, err := h.Status(ctx); err != nil || s.State != task.Done {
				t.Errorf("at last the task is %+v, %v", s, err)
			}
			if n := len(started); n != 0 || len(w.deadLetters(t)) != 0 {
				t.Errorf("it was started %d times more; %d dead letters", n, len(w.deadLetters(t)))
			}
		})
	}
}

func TestLongTaskIsStartedOnceWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	w := worldOf(t, testkit.BrokerProcess(t))
	kind := task.NewKind[image](kindName, far)
	started, finish := make(chan string, 8), make(chan struct{}) // more than the tries
	for _, conn := range []*bus.Conn{w.conn, w.join(t)} {
		runs(t, task.NewWorker(conn, kind, func(ctx context.Context, _ task.Task[image]) error {
			started <- conn.Grant().User
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return ctx.Err()
		}, task.WorkerConfig{Concurrency: 2, Logger: testkit.Logger(t)}))
	}
	h, err := kind.Enqueue(testkit.Context(t), w.conn, image{"long"})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Wait(t, started)
	for _, away := range []time.Duration{0, 6 * time.Second} { // the broker waits 5 s for a sign of life
		w.Kill(t)
		<-time.After(away)
		w.Start(t)
		testkit.Eventually(t, w.NC.IsConnected, "the test is connected again")
		<-time.After(7 * time.Second)
	}
	close(finish)
	w.waitQueued(t, 0)
	if s, err := h.Status(testkit.Context(t)); err != nil || s.State != task.Done || s.Attempt != 1 {
		t.Errorf("the task is %+v, %v", s, err)
	}
	if n := len(started); n != 0 {
		t.Errorf("it was started %d times more", n)
	}
}
