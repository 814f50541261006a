package cron_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/cron"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const kindName = "digest.send"

var digest = task.NewKind[json.RawMessage](kindName, task.Config{})

// world is a broker with a queue and a service that handles its tasks.
type world struct {
	*testkit.TestBroker
	conn *bus.Conn
}

func newWorld(t *testing.T, b *testkit.TestBroker) *world {
	t.Helper()
	w := &world{TestBroker: b}
	conn, err := bus.Connect(testkit.Context(t), bus.Config{
		URL: b.URL, Logger: testkit.Logger(t), Grant: b.Grant(t, wire.Grant{Service: "digest", Handles: []string{kindName}, Enqueues: []string{kindName}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // the broker may be gone
	w.conn = conn
	return w
}

// run runs a runner until what it returns is called.
func (w *world) run(t *testing.T, entries ...cron.Entry) (r *cron.Runner, stop func()) {
	t.Helper()
	r = cron.NewRunner(w.NC, w.JS, cron.Config{Logger: testkit.Logger(t), Stored: func(context.Context, string, uint64) error { return nil }})
	r.Set(entries)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) }) // it returns nil
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return r, stop
}

// works handles the tasks of the world with fn.
func (w *world) works(t *testing.T, fn func(task.Task[json.RawMessage])) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	worker := task.NewWorker(w.conn, digest, func(_ context.Context, one task.Task[json.RawMessage]) error {
		fn(one)
		return nil
	}, task.WorkerConfig{Concurrency: 16, Logger: testkit.Logger(t)})
	var wg sync.WaitGroup
	wg.Go(func() { _ = worker.Run(ctx) }) // it returns nil
	t.Cleanup(func() { cancel(); wg.Wait() })
	testkit.Wait(t, worker.Ready())
}

func seconds(t *testing.T, name, overlap string) cron.Entry {
	t.Helper()
	e := entry(t, "* * * * * *", "UTC", overlap, cron.CatchUpNone)
	e.Name, e.Queue, e.Kind, e.Priority, e.Args = name, kindName, kindName, wire.TaskPriority1, []byte(`{"to":"all"}`)
	return e
}

func TestThreeRunnersThatRestartBesideABrokerThatDiesRunEachTickOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.BrokerProcess(t))
	var mu sync.Mutex
	var ids []string
	done := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(ids)
	}
	w.works(t, func(one task.Task[json.RawMessage]) {
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, one.ID)
		if string(one.Args) != `{"to":"all"}` {
			t.Errorf("the arguments are %s", one.Args)
		}
	})
	e := seconds(t, "each", cron.OverlapAllow)
	for range 2 {
		w.run(t, e)
	}
	_, stop := w.run(t, e)
	for round := 1; round <= 3; round++ {
		n := done()
		testkit.Eventually(t, func() bool { return done() > n+1 }, "ticks are run")
		stop() // a rolling restart of one of them
		if round == 2 {
			w.Kill(t)
			w.Start(t)
			testkit.Eventually(t, w.NC.IsConnected, "the runners are connected again")
		}
		_, stop = w.run(t, e)
	}
	n := done()
	testkit.Eventually(t, func() bool { return done() > n+1 }, "ticks are run at last")
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(ids)
	for i := 1; i < len(ids); i++ {
		before, after := tickOf(t, ids[i-1]), tickOf(t, ids[i])
		if after.Sub(before) != time.Second {
			t.Errorf("after %s comes %s", ids[i-1], ids[i])
		}
	}
}

func tickOf(t *testing.T, id string) time.Time {
	t.Helper()
	tick, err := time.Parse(time.RFC3339, strings.TrimPrefix(id, "cron:each:"))
	if err != nil {
		t.Fatal(err)
	}
	return tick
}

func TestATickWaitsForTheTaskBeforeIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Broker(t))
	started, finish := make(chan string, 64), make(chan struct{}) // more than the ticks of this test
	w.works(t, func(one task.Task[json.RawMessage]) {
		started <- one.ID
		<-finish
	})
	r, _ := w.run(t, seconds(t, "skipping", cron.OverlapSkip), seconds(t, "queueing", cron.OverlapQueue))
	first := []string{testkit.Wait(t, started), testkit.Wait(t, started)}
	if strings.HasPrefix(first[0], "cron:skipping") == strings.HasPrefix(first[1], "cron:skipping") {
		t.Errorf("one of each is run first: %v", first)
	}
	of := func(name string) cron.Status {
		all, err := r.List(testkit.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		return all[slices.IndexFunc(all, func(s cron.Status) bool { return s.Name == name })]
	}
	testkit.Eventually(t, func() bool { return of("skipping").Skipped > 0 && of("queueing").Skipped > 0 }, "ticks are skipped")
	if s := of("skipping"); s.Count != 1 || !s.Busy || !s.Queued.IsZero() || s.Next.IsZero() {
		t.Errorf("skipping is %+v", s)
	}
	if s := of("queueing"); s.Count != 1 || !s.Busy || s.Queued.IsZero() {
		t.Errorf("queueing is %+v", s)
	}
	if n := len(started); n != 0 {
		t.Errorf("%d more were started beside them", n)
	}
	close(finish)
	testkit.Eventually(t, func() bool { return of("skipping").Count > 1 && of("queueing").Count > 1 }, "both go on")
}

func TestACronThatIsGoneIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Broker(t))
	r, _ := w.run(t, seconds(t, "one", cron.OverlapAllow), seconds(t, "two", cron.OverlapAllow))
	ctx := testkit.Context(t)
	stream, err := w.JS.Stream(ctx, wire.StreamName(wire.QueueStream(kindName)))
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		_, err := stream.GetLastMsgForSubject(ctx, wire.CronSubject(kindName, name))
		if err != nil && err != jetstream.ErrMsgNotFound {
			t.Fatal(err)
		}
		return err == nil
	}
	testkit.Eventually(t, func() bool { return has("one") && has("two") }, "both are known")
	r.Set([]cron.Entry{seconds(t, "two", cron.OverlapAllow)})
	testkit.Eventually(t, func() bool { return r.Clean(ctx, []string{kindName}) == nil && !has("one") }, "one is forgotten")
	if !has("two") {
		t.Error("two is forgotten, too")
	}
}
