package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// quick retries at once.
var quick = task.Config{Attempts: 3, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond}

func enqueue(t *testing.T, w *world, path string) string {
	t.Helper()
	h, err := task.NewKind[image](kindName, quick).Enqueue(testkit.Context(t), w.conn, image{path})
	if err != nil {
		t.Fatal(err)
	}
	return h.ID
}

func TestFailedTaskIsRetriedUntilItSucceeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tries := make(chan task.Task[image], 3) // one a try
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(_ context.Context, got task.Task[image]) error {
		tries <- got
		switch got.Attempt {
		case 1:
			return errors.New("not yet")
		case 2:
			panic("not yet either")
		}
		return nil
	}, task.WorkerConfig{Logger: testkit.Logger(t)}))
	id := enqueue(t, w, "a.png")
	for attempt := 1; attempt <= 3; attempt++ {
		got := testkit.Wait(t, tries)
		if got.Attempt != attempt || got.ID != id || got.Kind != kindName || got.Args.Path != "a.png" {
			t.Errorf("try %d got %+v", attempt, got)
		}
		if age := time.Since(got.EnqueuedAt); age < 0 || age > testkit.Patience {
			t.Errorf("enqueued at %v", got.EnqueuedAt)
		}
	}
	w.waitQueued(t, 0)
	if n := len(w.deadLetters(t)); n != 0 {
		t.Errorf("there are %d dead letters", n)
	}
	counters := w.conn.Counters()
	testkit.Eventually(t, func() bool { return counters.Tasks.Load() == 1 }, "the done task is counted")
	if n := counters.Retried.Load(); n != 2 {
		t.Errorf("retries counted: %d", n)
	}
}

func TestTaskThatKeepsFailingBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var tries atomic.Int64
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(context.Context, task.Task[image]) error {
		tries.Add(1)
		return &fault.Error{Code: "image/broken", What: "no\nimage"}
	}, task.WorkerConfig{}))
	id := enqueue(t, w, "a.png")
	dead := w.waitDead(t)
	if n := tries.Load(); n != 3 {
		t.Errorf("%d tries, want 3", n)
	}
	want := map[string]string{
		wire.HeaderSource: "hozo.tasks.image.thumbnail:1:0", wire.HeaderTaskID: id, wire.HeaderSubject: "hozo.tasks.image_thumbnail.q.image_thumbnail.2." + id,
		wire.HeaderCode: "image/broken", wire.HeaderError: "no image", wire.HeaderAttempts: "3",
	}
	for name, value := range want {
		if got := dead.Header.Get(name); got != value {
			t.Errorf("%s = %q, want %q", name, got, value)
		}
	}
	if dead.Subject != "hozo.dlq.images.hozo_tasks_image_thumbnail.1.0" {
		t.Errorf("stored as %s", dead.Subject)
	}
	if string(dead.Data) != `{"Path":"a.png"}` {
		t.Errorf("arguments = %s", dead.Data)
	}
	if n := w.conn.Counters().Parked.Load(); n != 1 {
		t.Errorf("parked counted: %d", n)
	}
}

func TestUselessTaskBecomesADeadLetterAtOnce(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args string
		fn   func() error
		code string
	}{
		"undecodable":       {`{"Path": 7}`, func() error { return nil }, task.CodeDecode},
		"rejected":          {`{}`, func() error { return task.Reject(errors.New("no such image")) }, task.CodeRejected},
		"rejected by fault": {`{}`, func() error { return task.Reject(&fault.Error{Code: "image/gone"}) }, "image/gone"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var calls atomic.Int64
			runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(context.Context, task.Task[image]) error {
				calls.Add(1)
				return test.fn()
			}, task.WorkerConfig{}))
			raw := task.NewKind[json.RawMessage](kindName, quick)
			if _, err := raw.Enqueue(testkit.Context(t), w.conn, json.RawMessage(test.args)); err != nil {
				t.Fatal(err)
			}
			dead := w.waitDead(t)
			if got := dead.Header.Get(wire.HeaderCode); got != test.code || dead.Header.Get(wire.HeaderAttempts) != "1" {
				t.Errorf("dead letter is %v", dead.Header)
			}
			if n := calls.Load(); n > 1 {
				t.Errorf("the handler was called %d times", n)
			}
		})
	}
}

func TestKilledWorkerLosesItsTaskToAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := enqueue(t, w, "a.png")
	child := w.child(t, "worker")
	testkit.Eventually(t, func() bool { return strings.Contains(child.Output(), "started a.png") }, "the child has the task")
	child.Kill(t)

	got := make(chan task.Task[image], 1)
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, task.Config{}), func(_ context.Context, one task.Task[image]) error {
		got <- one
		return nil
	}, task.WorkerConfig{}))
	if one := testkit.Wait(t, got); one.ID != id || one.Attempt != 1 {
		t.Errorf("after the crash: %+v", one)
	}
	w.waitQueued(t, 0)
}

func TestTaskLongerThanTheBrokersPatienceIsNotGivenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var calls atomic.Int64
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, task.Config{}), func(ctx context.Context, _ task.Task[image]) error {
		calls.Add(1)
		long := time.NewTimer(6500 * time.Millisecond) // the broker waits 5 s for a sign of life
		defer long.Stop()
		select {
		case <-long.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, task.WorkerConfig{}))
	enqueue(t, w, "a.png")
	w.waitQueued(t, 0)
	if n := calls.Load(); n != 1 {
		t.Errorf("the handler was called %d times", n)
	}
}

func TestAttemptThatOverrunsItsTimeIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := quick
	cfg.Timeout, cfg.Attempts = 50*time.Millisecond, 2
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, cfg), func(ctx context.Context, _ task.Task[image]) error {
		<-ctx.Done()
		return ctx.Err()
	}, task.WorkerConfig{}))
	enqueue(t, w, "a.png")
	dead := w.waitDead(t)
	if got := dead.Header.Get(wire.HeaderCode); got != task.CodeTimeout || dead.Header.Get(wire.HeaderAttempts) != "2" {
		t.Errorf("dead letter is %v", dead.Header)
	}
}

func TestTaskThatOnlyEverEndsItsWorkerBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := enqueue(t, w, "a.png")
	for start := range task.DefaultCrashes {
		child := w.child(t, "worker")
		testkit.Eventually(t, func() bool { return strings.Contains(child.Output(), "started a.png") }, fmt.Sprintf("start %d", start+1))
		child.Kill(t)
	}
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(_ context.Context, one task.Task[image]) error {
		if one.ID == id {
			t.Error("the task was run")
		}
		return nil
	}, task.WorkerConfig{}))
	enqueue(t, w, "b.png") // others flow
	if got := w.waitDead(t).Header.Get(wire.HeaderCode); got != task.CodeInterrupted {
		t.Errorf("code = %s", got)
	}
}

func TestTasksSurviveAKilledBroker(t *testing.T) {
	t.Parallel()
	w := worldOf(t, testkit.BrokerProcess(t))
	started, release := make(chan struct{}, 8), make(chan struct{}) // more than the tries
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(context.Context, task.Task[image]) error {
		started <- struct{}{}
		<-release
		return nil
	}, task.WorkerConfig{Concurrency: 1}))
	enqueue(t, w, "a.png")
	enqueue(t, w, "b.png")
	testkit.Wait(t, started)
	w.Kill(t)
	w.Start(t)
	close(release)
	testkit.Eventually(t, w.NC.IsConnected, "the test is connected again")
	w.waitQueued(t, 0)
	if n := len(w.deadLetters(t)); n != 0 {
		t.Errorf("there are %d dead letters", n)
	}
}

func TestInstancesShareTheTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const tasks = 40
	var running, most atomic.Int64
	full := make(chan struct{})
	both := func(context.Context, task.Task[image]) error {
		if n := running.Add(1); n == 4 {
			close(full)
		}
		<-full // nobody goes on before all four places are taken
		most.Store(max(most.Load(), running.Load()))
		running.Add(-1)
		return nil
	}
	for range tasks {
		enqueue(t, w, "a.png")
	}
	kind := task.NewKind[image](kindName, quick)
	runs(t, task.NewWorker(w.conn, kind, both, task.WorkerConfig{Concurrency: 2}))
	other := w.join(t)
	runs(t, task.NewWorker(other, kind, both, task.WorkerConfig{Concurrency: 2}))
	testkit.Wait(t, full)
	w.waitQueued(t, 0)
	if n := most.Load(); n > 4 {
		t.Errorf("%d tasks ran at once", n)
	}
	testkit.Eventually(t, func() bool {
		return w.conn.Counters().Tasks.Load()+other.Counters().Tasks.Load() == tasks
	}, "every task is counted once")
}

func TestWorkerOfAKindThatIsNotGrantedFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker := task.NewWorker(w.conn, task.NewKind[image]("other.kind", quick), func(context.Context, task.Task[image]) error { return nil }, task.WorkerConfig{})
	err := worker.Run(testkit.Context(t))
	if f, ok := fault.As(err); !ok || f.Code != task.CodeNotHandled || !strings.Contains(f.Fix, "handles of service images") {
		t.Errorf("Run = %v", err)
	}
}

func TestWorkerSurvivesStress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	testkit.Stress(t, func() lifecycle.Runner {
		return task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(context.Context, task.Task[image]) error { return nil }, task.WorkerConfig{})
	})
}
