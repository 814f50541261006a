package dispatch_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/dispatch"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const kindName = "mail.send"

var mail = task.NewKind[int](kindName, task.Config{Backoff: time.Millisecond})

// world is a broker with a queue, and a service that enqueues and handles its tasks.
type world struct {
	*testkit.TestBroker
	conn  *bus.Conn
	paced bool
}

func newWorld(t *testing.T, b *testkit.TestBroker, paced bool) *world {
	t.Helper()
	w := &world{TestBroker: b}
	w.conn = w.join(t)
	w.pace(t, paced)
	return w
}

func (w *world) join(t *testing.T) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(testkit.Context(t), bus.Config{
		URL: w.URL, Logger: testkit.Logger(t), Grant: w.Grant(t, wire.Grant{Service: "mail", Handles: []string{kindName}, Enqueues: []string{kindName}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // the broker may be gone
	w.pace(t, w.paced)                                                       // a grant provisions the broker anew
	return conn
}

// pace has the queue be limited or not.
func (w *world) pace(t *testing.T, paced bool) {
	t.Helper()
	w.paced = paced
	layout := w.Layout()
	layout.Queues[0].Paced = paced
	if err := broker.Provision(testkit.Context(t), w.JS, layout); err != nil {
		t.Fatal(err)
	}
}

// dispatches runs a dispatcher until what it returns is called.
func (w *world) dispatches(t *testing.T, limits dispatch.Limits) (d *dispatch.Dispatcher, stop func()) {
	t.Helper()
	d = dispatch.New(w.NC, w.JS, testkit.Logger(t))
	d.Set([]dispatch.Queue{{Name: kindName, Limits: limits}})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx) }) // it returns nil
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return d, stop
}

// works handles tasks with fn until the end of t.
func (w *world) works(t *testing.T, conn *bus.Conn, concurrency int, fn func(context.Context, task.Task[int]) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	worker := task.NewWorker(conn, mail, fn, task.WorkerConfig{Concurrency: concurrency, Logger: testkit.Logger(t)})
	var wg sync.WaitGroup
	wg.Go(func() { _ = worker.Run(ctx) }) // it returns nil
	t.Cleanup(func() { cancel(); wg.Wait() })
	testkit.Wait(t, worker.Ready())
}

func (w *world) enqueue(t *testing.T, key string, n int, opts ...task.Option) {
	t.Helper()
	e, err := mail.NewEnqueuer(w.conn, task.EnqueuerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	for i := range n {
		if _, err := e.Enqueue(ctx, i, append(opts, task.Key(key))...); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// queued is how many messages the queue holds.
func (w *world) queued(t *testing.T) uint64 {
	t.Helper()
	stream, err := w.JS.Stream(testkit.Context(t), wire.StreamName(wire.QueueStream(kindName)))
	if err != nil {
		return 1 << 62 // the broker is away
	}
	return stream.CachedInfo().State.Msgs
}

// gauge counts what runs, by key.
type gauge struct {
	mu        sync.Mutex
	now, most map[string]int
	done      map[string]int
	all, peak int
	order     []string
}

func newGauge() *gauge {
	return &gauge{now: map[string]int{}, most: map[string]int{}, done: map[string]int{}}
}

func (g *gauge) enter(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now[key]++
	g.all++
	g.most[key], g.peak = max(g.most[key], g.now[key]), max(g.peak, g.all)
	g.order = append(g.order, key)
}

func (g *gauge) leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now[key]--
	g.all--
	g.done[key]++
}

func (g *gauge) finished() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, d := range g.done {
		n += d
	}
	return n
}

func TestAFloodOfOneKeyHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	flood := 3000
	if n, err := strconv.Atoi(os.Getenv("HOZO_FLOOD")); err == nil {
		flood = n
	}
	w := newWorld(t, testkit.Broker(t), true)
	w.dispatches(t, dispatch.Limits{})
	g := newGauge()
	w.enqueue(t, "flood", flood)
	var mu sync.Mutex
	var late []time.Duration
	w.works(t, w.conn, 4, func(_ context.Context, one task.Task[int]) error {
		g.enter(one.Key)
		defer g.leave(one.Key)
		if one.Key == "small" {
			mu.Lock()
			late = append(late, time.Since(time.Unix(0, int64(one.Args))))
			mu.Unlock()
		}
		return nil
	})
	testkit.Eventually(t, func() bool { return g.finished() > 50 }, "the flood is being worked on")
	begun := time.Now()
	for range 10 {
		if _, err := mail.Enqueue(testkit.Context(t), w.conn, int(time.Now().UnixNano()), task.Key("small")); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, func() bool { return w.queued(t) == 0 }, "everything is done")
	g.mu.Lock()
	last := slices.Index(g.order, "small")
	for i, key := range g.order {
		if key == "small" {
			last = i
		}
	}
	if last > len(g.order)-flood/10 {
		t.Errorf("the last of the small one was number %d of %d", last+1, len(g.order))
	}
	if g.done["flood"] != flood || g.done["small"] != 10 {
		t.Errorf("done are %v", g.done)
	}
	g.mu.Unlock()
	slices.SortFunc(late, cmp.Compare[time.Duration])
	t.Logf("%d and 10 in %v; the last of the ten began %v after it was enqueued, and was number %d", flood, time.Since(begun), late[len(late)-1], last+1)
}

func TestLimitsHoldOverInstancesAndRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.BrokerProcess(t), true)
	limits := dispatch.Limits{Concurrency: 5, KeyConcurrency: 2}
	_, stop := w.dispatches(t, limits)
	g := newGauge()
	for _, conn := range []*bus.Conn{w.conn, w.join(t)} {
		w.works(t, conn, 16, func(ctx context.Context, one task.Task[int]) error {
			g.enter(one.Key)
			defer g.leave(one.Key)
			select {
			case <-time.After(5 * time.Millisecond): // the work
			case <-ctx.Done():
			}
			if one.Args%10 == 0 && one.Attempt == 1 {
				return fmt.Errorf("the first try fails")
			}
			return nil
		})
	}
	const each = 60
	keys := []string{"a", "b", "c", "d"}
	for _, key := range keys {
		w.enqueue(t, key, each)
	}
	testkit.Eventually(t, func() bool { return g.finished() > 20 }, "tasks are done")
	stop()
	_, stop = w.dispatches(t, limits)
	n := g.finished()
	testkit.Eventually(t, func() bool { return g.finished() > n+20 }, "another dispatcher goes on")
	w.Kill(t)
	w.Start(t)
	testkit.Eventually(t, func() bool { return w.queued(t) == 0 }, "everything is done")
	stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peak > 5 {
		t.Errorf("%d ran at once", g.peak)
	}
	for _, key := range keys {
		if g.most[key] > 2 {
			t.Errorf("%d of %s ran at once", g.most[key], key)
		}
		if g.done[key] < each+each/10 {
			t.Errorf("%d attempts of %s ended", g.done[key], key)
		}
	}
}

func TestWhatWaitsInALimitedQueueCanBeFoundAndCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Broker(t), true)
	ctx := testkit.Context(t)
	testkit.Eventually(t, func() bool { // until it is known here that the queue is limited
		h, err := mail.Enqueue(ctx, w.conn, 1, task.Key("a b"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.Status(ctx)
		return err == nil && s.State == task.Pending && s.Due.IsZero() && h.Cancel(ctx) == nil
	}, "a task waits")
	first, err := mail.Enqueue(ctx, w.conn, 2, task.ID("one"), task.Key("a b"))
	if err != nil || first.Duplicate {
		t.Fatal(first, err)
	}
	if again, err := mail.Enqueue(ctx, w.conn, 2, task.ID("one"), task.Key("a b")); err != nil || !again.Duplicate {
		t.Errorf("the same id again: %+v, %v", again, err)
	}
	if _, err := mail.Enqueue(ctx, w.conn, 3, task.ID("two")); err != nil {
		t.Fatal(err)
	}
	if err := first.Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	w.dispatches(t, dispatch.Limits{Concurrency: 1})
	got := make(chan int, 8) // more than there are
	w.works(t, w.conn, 4, func(_ context.Context, one task.Task[int]) error {
		got <- one.Args
		return nil
	})
	if n := testkit.Wait(t, got); n != 3 {
		t.Errorf("%d was run", n)
	}
	testkit.Eventually(t, func() bool { return w.queued(t) == 0 }, "nothing is left")
	if len(got) > 0 {
		t.Errorf("%d was run, too", <-got)
	}
}

func TestAQueueIsLimitedWhileItHoldsTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Broker(t), false)
	w.enqueue(t, "a", 200)
	w.pace(t, true)
	w.dispatches(t, dispatch.Limits{KeyConcurrency: 1})
	g := newGauge()
	w.works(t, w.conn, 16, func(_ context.Context, one task.Task[int]) error {
		g.enter(one.Key)
		defer g.leave(one.Key)
		return nil
	})
	testkit.Eventually(t, func() bool { return w.queued(t) == 0 }, "everything is done")
	if g.most["a"] != 1 || g.done["a"] != 200 {
		t.Errorf("%d of %d ran at once", g.most["a"], g.done["a"])
	}
}

func TestARateHoldsOverInstances(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Broker(t), true)
	g := newGauge()
	for _, conn := range []*bus.Conn{w.conn, w.join(t)} {
		w.works(t, conn, 4, func(_ context.Context, one task.Task[int]) error {
			g.enter(one.Key)
			g.leave(one.Key)
			return nil
		})
	}
	w.enqueue(t, "a", 100)
	begun := time.Now()
	w.dispatches(t, dispatch.Limits{Rate: dispatch.Rate{N: 50, Per: time.Second}})
	testkit.Eventually(t, func() bool { return g.finished() >= 60 }, "sixty are done")
	// What is saved up, and the one that a dispatcher begins with, are the only ones beyond the rate.
	if took := time.Since(begun); took < time.Second {
		t.Errorf("sixty at fifty a second took %v", took)
	}
}
