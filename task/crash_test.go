package task_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// far retries by schedules of the broker.
var far = task.Config{Attempts: 3, Backoff: 5 * time.Second, MaxBackoff: 5 * time.Second, Keep: time.Minute}

// Environment of the children.
const (
	envStep    = "TASK_TEST_STEP"    // where the actor kills itself
	envRelease = "TASK_TEST_RELEASE" // file for which its handler waits, whatever its context says
	envPlain   = "TASK_TEST_PLAIN"   // not empty: a kind that keeps nothing and retries at once
)

// act is what the handlers of these tests do: the path says how it ends.
func act(path, who string) (string, error) {
	switch path {
	case "fail":
		return "", errors.New("failed by " + who)
	case "reject":
		return "", task.Reject(errors.New("rejected by " + who))
	}
	return who, nil
}

// actorChild is a worker that kills itself at a step, or ends in an orderly way by SIGTERM.
func actorChild() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	task.OnStep(killAt(os.Getenv(envStep)))
	cfg := far
	if os.Getenv(envPlain) != "" {
		cfg = quick
	}
	conn, err := bus.FromEnv(ctx, nil)
	if err == nil {
		err = task.NewWorker(conn, task.NewKind[image](kindName, cfg), func(_ context.Context, one task.Task[image]) error {
			fmt.Println("started", one.Args.Path)
			awaitFile(os.Getenv(envRelease))
			_, err := act(one.Args.Path, "actor")
			return err
		}, task.WorkerConfig{Concurrency: 1}).Run(ctx)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// lockerChild dies between the lock of a unique task and the task, or enqueues it.
func lockerChild() {
	ctx := context.Background()
	task.OnStep(killAt(os.Getenv(envStep)))
	task.SetOrphanAge(time.Second)
	conn, err := bus.FromEnv(ctx, nil)
	if err == nil {
		var h task.Handle
		h, err = task.NewKind[image](kindName, far).Enqueue(ctx, conn, image{"ok"}, task.Unique("u"))
		fmt.Printf("duplicate %v\n", h.Duplicate)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func killAt(wanted string) func(string) {
	return func(name string) {
		if name == wanted {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it comes
		}
	}
}

func awaitFile(path string) {
	for range time.Tick(10 * time.Millisecond) {
		if _, err := os.Stat(path); path == "" || err == nil {
			return
		}
	}
}

func TestKillBetweenAnyTwoStepsIsRepaired(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		step, path string
		state      task.State
		attempts   []int // that another worker runs afterwards
		letters    int
	}{
		"handler, outcome":           {"handler returned", "ok", task.Done, []int{1}, 0},
		"done, unlock":               {"end recorded", "ok", task.Done, nil, 0},
		"unlock, ack":                {"lock given back", "ok", task.Done, nil, 0},
		"retry, copy":                {"retry recorded", "fail", task.Done, []int{2}, 0},
		"copy, ack":                  {"next copy stored", "fail", task.Done, []int{2}, 0},
		"death, letter":              {"death recorded", "reject", task.Dead, nil, 1},
		"letter, unlock":             {"letter stored", "reject", task.Dead, nil, 1},
		"unlock of a dead task, ack": {"lock given back", "reject", task.Dead, nil, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx := testkit.Context(t)
			kind := task.NewKind[image](kindName, far)
			h, err := kind.Enqueue(ctx, w.conn, image{test.path}, task.Unique("u"))
			if err != nil {
				t.Fatal(err)
			}
			child := w.child(t, "actor", envStep+"="+test.step)
			testkit.Wait(t, child.Done)
			if err := child.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("the child ended by %v", err)
			}
			attempts := make(chan int, 8) // more than the tries
			runs(t, task.NewWorker(w.conn, kind, func(_ context.Context, one task.Task[image]) error {
				attempts <- one.Attempt
				return nil
			}, task.WorkerConfig{Logger: testkit.Logger(t)}))
			w.waitQueued(t, 0)
			s, err := h.Status(ctx)
			if err != nil || s.State != test.state {
				t.Errorf("the task is %+v, %v", s, err)
			}
			close(attempts)
			var got []int
			for n := range attempts {
				got = append(got, n)
			}
			if fmt.Sprint(got) != fmt.Sprint(test.attempts) {
				t.Errorf("afterwards the attempts %v were run, want %v", got, test.attempts)
			}
			if n := len(w.deadLetters(t)); n != test.letters {
				t.Errorf("%d dead letters, want %d", n, test.letters)
			}
			if next, err := kind.Enqueue(ctx, w.conn, image{"later"}, task.Unique("u"), task.In(time.Hour)); err != nil || next.Duplicate {
				t.Errorf("the lock is not free: %+v, %v", next, err)
			}
		})
	}
}

func TestLockWithoutATaskIsTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := w.child(t, "locker", envStep+"=lock taken")
	testkit.Wait(t, dead.Done)
	if n := w.queued(t); n != 0 || dead.Err() == nil {
		t.Fatalf("%d tasks are queued; the child ended by %v", n, dead.Err())
	}
	testkit.Eventually(t, func() bool {
		next := w.child(t, "locker")
		testkit.Wait(t, next.Done)
		return strings.Contains(next.Output(), "duplicate false")
	}, "somebody takes the lock over")
	if n := w.queued(t); n != 1 {
		t.Errorf("%d tasks are queued", n)
	}
	last := w.child(t, "locker")
	testkit.Wait(t, last.Done)
	if !strings.Contains(last.Output(), "duplicate true") {
		t.Errorf("a lock with a task was taken over: %s", last.Output())
	}
}
