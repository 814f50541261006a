package task_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// tried counts how often each task was begun. It is safe for concurrent use.
type tried struct {
	mu    sync.Mutex
	times map[string]int
}

func (c *tried) add(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times == nil {
		c.times = map[string]int{}
	}
	c.times[path]++
	return c.times[path]
}

func (c *tried) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.times)
}

// waitTried waits until n different tasks were begun.
func (c *tried) wait(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, func() bool { return len(c.all()) >= n }, fmt.Sprintf("%d tasks are begun", n))
}

// notOnce names the tasks that were not begun exactly once, but for some.
func (c *tried) notOnce(want int, but ...string) []string {
	var wrong []string
	all := c.all()
	for _, path := range but {
		delete(all, path)
	}
	for path, n := range all {
		if n != 1 {
			wrong = append(wrong, fmt.Sprintf("%s %d times", path, n))
		}
	}
	if len(all) != want {
		wrong = append(wrong, fmt.Sprintf("%d tasks of %d", len(all), want))
	}
	return wrong
}

// enqueueFrame stores n tasks in one message.
func enqueueFrame(t *testing.T, w *world, n int) []task.Handle {
	t.Helper()
	before := w.queued(t)
	handles, err := task.NewKind[image](kindName, quick).EnqueueMany(testkit.Context(t), w.conn, images(n))
	if err != nil || len(handles) != n {
		t.Fatalf("%d handles, %v", len(handles), err)
	}
	if got := w.queued(t) - before; got != 1 {
		t.Fatalf("%d tasks are stored as %d messages", n, got)
	}
	return handles
}

func TestTasksOfAFrameAreSettledEachByItself(t *testing.T) {
	t.Parallel()
	handle := func(c *tried, one task.Task[image]) error {
		n := c.add(one.Args.Path)
		switch one.Args.Path {
		case "3.png":
			return task.Reject(errors.New("no such image"))
		case "5.png":
			if n != one.Attempt {
				return task.Reject(fmt.Errorf("attempt %d comes as try %d", one.Attempt, n))
			}
			if n < 3 {
				return errors.New("not yet")
			}
		case "7.png":
			if n == 1 {
				return task.Snooze(time.Millisecond)
			}
		}
		return nil
	}
	workers := map[string]func(w *world, c *tried) *task.Worker[image]{
		"one by one": func(w *world, c *tried) *task.Worker[image] {
			return task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(_ context.Context, one task.Task[image]) error {
				return handle(c, one)
			}, task.WorkerConfig{})
		},
		"in batches": func(w *world, c *tried) *task.Worker[image] {
			return task.NewBatchWorker(w.conn, task.NewKind[image](kindName, quick), func(_ context.Context, all []task.Task[image]) error {
				outcomes := make(task.BatchError, len(all))
				for i, one := range all {
					outcomes[i] = handle(c, one)
				}
				return outcomes
			}, task.WorkerConfig{Concurrency: 2, Batch: 7, Linger: time.Millisecond})
		},
	}
	for name, worker := range workers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			handles := enqueueFrame(t, w, 30)
			if s, err := handles[29].Status(testkit.Context(t)); err != nil || s.State != task.Pending {
				t.Errorf("the last: %+v, %v", s, err)
			}
			var c tried
			runs(t, worker(w, &c))
			dead := w.waitDead(t)
			w.waitQueued(t, 0)
			if id := dead.Header.Get(wire.HeaderTaskID); id != handles[3].ID || string(dead.Data) != `{"Path":"3.png"}` || !strings.Contains(dead.Header.Get(wire.HeaderSubject), ".q.") {
				t.Errorf("dead: %s %s %s", id, dead.Data, dead.Header.Get(wire.HeaderSubject))
			}
			if wrong := c.notOnce(28, "5.png", "7.png"); wrong != nil {
				t.Error(wrong)
			}
			if all := c.all(); all["5.png"] != 3 || all["7.png"] != 2 {
				t.Errorf("the failing one was tried %d times, the one that snoozed %d", all["5.png"], all["7.png"])
			}
		})
	}
}

// A frame goes to one worker. What it cannot begin soon must not wait for it.
func TestSlowWorkerHandsAFrameOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var c tried
	kind, finish := task.NewKind[image](kindName, quick), make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(finish) }) }
	defer release()
	runs(t, task.NewWorker(w.conn, kind, func(context.Context, task.Task[image]) error {
		c.add("slow")
		<-finish
		return nil
	}, task.WorkerConfig{Concurrency: 1}))
	enqueueFrame(t, w, 40)
	c.wait(t, 1)
	runs(t, task.NewWorker(w.join(t), kind, func(_ context.Context, one task.Task[image]) error {
		c.add(one.Args.Path)
		return nil
	}, task.WorkerConfig{}))
	c.wait(t, 40) // 39 and the slow one
	release()
	w.waitQueued(t, 0)
	if wrong := c.notOnce(40); wrong != nil {
		t.Error(wrong)
	}
}

func TestStoppedWorkerLosesNothingOfAFrame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var c tried
	kind := task.NewKind[image](kindName, quick)
	begun, finish := make(chan string, 40), make(chan struct{})
	first := runs(t, task.NewWorker(w.conn, kind, func(_ context.Context, one task.Task[image]) error {
		c.add(one.Args.Path)
		begun <- one.ID
		<-finish
		return nil
	}, task.WorkerConfig{Concurrency: 2}))
	enqueueFrame(t, w, 40)
	testkit.Wait(t, begun)
	testkit.Wait(t, begun)
	first.cancel()
	close(finish)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	runs(t, task.NewWorker(w.conn, kind, func(_ context.Context, one task.Task[image]) error {
		c.add(one.Args.Path)
		return nil
	}, task.WorkerConfig{}))
	w.waitQueued(t, 0)
	if wrong := c.notOnce(40); wrong != nil {
		t.Error(wrong)
	}
}

func TestCancelledTaskOfAFrameIsNotRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	handles := enqueueFrame(t, w, 10)
	if err := handles[3].Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := handles[3].Status(ctx); err != nil || s.State != task.Cancelled {
		t.Errorf("%+v, %v", s, err)
	}
	if err := handles[3].Cancel(ctx); fault.Code(err) != "" {
		t.Errorf("again: %v", err)
	}
	other := handles[0]
	other.ID = handles[0].ID[:len(handles[0].ID)-1] + "10"
	if err := other.Cancel(ctx); fault.Code(err) != task.CodeUnknown {
		t.Errorf("a task beyond the frame's end: %v", err)
	}
	var c tried
	begun, finish := make(chan string, 10), make(chan struct{})
	runs(t, task.NewWorker(w.conn, task.NewKind[image](kindName, quick), func(ctx context.Context, one task.Task[image]) error {
		c.add(one.Args.Path)
		begun <- one.ID
		select {
		case <-finish:
		case <-ctx.Done():
			c.add("ended")
		}
		return nil
	}, task.WorkerConfig{Concurrency: 1}))
	running := testkit.Wait(t, begun)
	for _, h := range handles {
		if h.ID == running || h.ID == handles[8].ID { // one in hand, and one that waits, in its frame or out of it
			if err := h.Cancel(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(finish)
	w.waitQueued(t, 0)
	all := c.all()
	if all["3.png"] != 0 || (all["8.png"] != 0 && running != handles[8].ID) || len(w.deadLetters(t)) != 0 {
		t.Errorf("begun: %v", all)
	}
	delete(all, "ended")
	if want := 8; len(all) != want {
		t.Errorf("%d tasks were begun, want %d: %v", len(all), want, all)
	}
}

func TestKilledWorkersFrameIsTakenApart(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"handler returned", "retry recorded", "death recorded", "letter stored", "frame taken apart"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			kind := task.NewKind[image](kindName, quick)
			args := images(20)
			args[2].Path, args[4].Path = "fail", "reject"
			if _, err := kind.EnqueueMany(testkit.Context(t), w.conn, args); err != nil {
				t.Fatal(err)
			}
			var c tried
			release := testkit.TempDir(t) + "/release"
			if at != "frame taken apart" {
				release = "" // there the first task holds the others up
			}
			child := w.child(t, "actor", envStep+"="+at, envPlain+"=1", envRelease+"="+release)
			testkit.Wait(t, child.Done)
			if err := child.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("the child ended by %v: %s", err, child.Output())
			}
			runs(t, task.NewWorker(w.conn, kind, func(_ context.Context, one task.Task[image]) error {
				c.add(one.Args.Path)
				if one.Args.Path == "reject" {
					return task.Reject(errors.New("rejected"))
				}
				return nil
			}, task.WorkerConfig{Logger: testkit.Logger(t)}))
			w.waitQueued(t, 0)
			all := c.all()
			for i, one := range args {
				if all[one.Path] == 0 && (one.Path != "reject" || len(w.deadLetters(t)) == 0) {
					t.Errorf("task %d, %s, was not run again", i, one.Path)
				}
			}
			if n := len(w.deadLetters(t)); n != 1 {
				t.Errorf("%d dead letters", n)
			}
		})
	}
}

func TestZombieWithAFrameChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kind := task.NewKind[image](kindName, quick)
	release := testkit.TempDir(t) + "/release"
	zombie := w.child(t, "actor", envRelease+"="+release, envPlain+"=1")
	enqueueFrame(t, w, 20)
	testkit.Eventually(t, func() bool { return strings.Contains(zombie.Output(), "started") }, "the child has the frame")
	zombie.Signal(t, syscall.SIGSTOP)
	var c tried
	finish := make(chan struct{})
	var once sync.Once
	goOn := func() { once.Do(func() { close(finish) }) }
	defer goOn()
	runs(t, task.NewWorker(w.conn, kind, func(ctx context.Context, one task.Task[image]) error {
		c.add(one.Args.Path)
		select {
		case <-finish:
		case <-ctx.Done():
		}
		return ctx.Err()
	}, task.WorkerConfig{Concurrency: 30}))
	c.wait(t, 19) // all but perhaps the one that the child has begun, when it had handed the others on
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	zombie.Signal(t, syscall.SIGCONT)
	zombie.Signal(t, syscall.SIGTERM)
	testkit.Wait(t, zombie.Done)
	if n := w.queued(t); n < 19 {
		t.Errorf("after the zombie %d tasks are queued", n)
	}
	goOn()
	w.waitQueued(t, 0)
	if n := len(strings.Fields(zombie.Output())) / 2; n+len(c.all()) < 20 || len(w.deadLetters(t)) != 0 {
		t.Errorf("the zombie began %d tasks and the other worker %v; %d dead letters", n, c.all(), len(w.deadLetters(t)))
	}
}

func TestFrameIsKeptWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	w := worldOf(t, testkit.BrokerProcess(t))
	kind := task.NewKind[image](kindName, quick)
	var c tried
	begun, finish := make(chan string, 40), make(chan struct{})
	for _, conn := range []*bus.Conn{w.conn, w.join(t)} {
		runs(t, task.NewBatchWorker(conn, kind, func(_ context.Context, all []task.Task[image]) error {
			for _, one := range all {
				c.add(one.Args.Path)
			}
			begun <- all[0].ID
			<-finish
			return nil
		}, task.WorkerConfig{Concurrency: 1, Batch: 40, Linger: time.Millisecond, Logger: testkit.Logger(t)}))
	}
	enqueueFrame(t, w, 40)
	testkit.Wait(t, begun)
	w.Kill(t)
	w.Start(t)
	testkit.Eventually(t, w.NC.IsConnected, "the test is connected again")
	<-time.After(7 * time.Second) // the broker waits 5 s for a sign of life
	close(finish)
	w.waitQueued(t, 0)
	if wrong := c.notOnce(40); wrong != nil {
		t.Error(wrong)
	}
}

func TestDamagedFrameIsParkedAndTheQueueGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testkit.Context(t)
	frame := bus.NewBuilder(wire.CodecNone)
	frame.Add([]byte(`{"Path":"a.png"}`))
	frame.Add([]byte(`{"Path":"b.png"}`))
	for count, data := range map[string][]byte{"2": []byte("no frame"), "3": frame.Frame(), "1000000": frame.Frame(), "many": frame.Frame()} {
		if _, err := w.JS.Publish(ctx, wire.FrameSubject(kindName, kindName, count, "ID"), data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.JS.Publish(ctx, wire.FrameSubject(kindName, kindName, "2", "GOOD"), frame.Frame()); err != nil {
		t.Fatal(err)
	}
	seen := collects(t, w)
	w.waitQueued(t, 0)
	if n, twice := seen(); n != 2 || twice != 0 {
		t.Errorf("%d tasks of the good frame came, %d again", n, twice)
	}
	letters := w.deadLetters(t)
	for _, letter := range letters {
		if code := letter.Header.Get(wire.HeaderCode); code != task.CodeBadHeader {
			t.Errorf("code %s", code)
		}
	}
	if len(letters) != 4 {
		t.Errorf("%d dead letters, want 4", len(letters))
	}
}

func TestBoundOfAQueueCountsTasksOfFrames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conn, err := bus.Connect(testkit.Context(t), bus.Config{URL: w.URL, Grant: w.Grant(t, boundedGrant(1000)), Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // it has nothing to store
	kind := task.NewKind[image](kindName, quick)
	if _, err := kind.EnqueueMany(testkit.Context(t), conn, images(950)); err != nil {
		t.Fatal(err)
	}
	if _, err := kind.EnqueueMany(testkit.Context(t), conn, images(51)); fault.Code(err) != task.CodeQueueFull {
		t.Errorf("51 more than 950 of 1000: %v", err)
	}
	if _, err := kind.EnqueueMany(testkit.Context(t), conn, images(50)); err != nil {
		t.Error(err)
	}
}
