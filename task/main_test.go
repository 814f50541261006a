package task_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

const kindName = "image.thumbnail"

type image struct{ Path string }

func TestMain(m *testing.M) {
	// The properties here are of a real broker: a second each on a busy machine. -rapid.checks=1000 is a long form.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	testkit.Main(m, testkit.Child("worker", workerChild), testkit.Child("actor", actorChild), testkit.Child("locker", lockerChild),
		testkit.Child("drill", drillChild), testkit.Child("joined", joinedChild), testkit.Child("relay", relayChild), testkit.Child("isolated", isolatedChild))
}

// workerChild takes one task, says so and holds it until it is killed.
func workerChild() {
	ctx := context.Background()
	conn, err := bus.FromEnv(ctx, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	kind := task.NewKind[image](kindName, task.Config{})
	err = task.NewWorker(conn, kind, func(ctx context.Context, t task.Task[image]) error {
		fmt.Println("started", t.Args.Path)
		<-ctx.Done()
		return ctx.Err()
	}, task.WorkerConfig{Concurrency: 1}).Run(ctx)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// world is a broker and a service that enqueues and handles tasks of one kind.
type world struct {
	*testkit.TestBroker
	conn *bus.Conn
}

func newWorld(t *testing.T) *world { return worldOf(t, testkit.Broker(t)) }

func worldOf(t *testing.T, b *testkit.TestBroker) *world {
	t.Helper()
	w := &world{TestBroker: b}
	w.conn = w.join(t)
	return w
}

// grant lets another instance of the service in.
func (w *world) grant(t *testing.T) wire.Grant {
	t.Helper()
	return w.Grant(t, wire.Grant{
		Service: "images", Handles: []string{kindName}, Enqueues: []string{kindName},
		Consumes: []wire.Source{{Stream: "events.raw"}}, Publish: []wire.Route{{Subject: "events.raw", Stream: "events.raw"}},
	})
}

// join connects another instance of the service.
func (w *world) join(t *testing.T) *bus.Conn {
	t.Helper()
	return w.connectAs(t, w.grant(t))
}

// connectAs connects with a grant.
func (w *world) connectAs(t *testing.T, g wire.Grant) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(testkit.Context(t), bus.Config{URL: w.URL, Grant: g, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	conn.NATS().SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() {
		_ = conn.Close(context.WithoutCancel(t.Context())) // the broker may be gone
		testkit.Wait(t, closed)
	})
	return conn
}

// running is a worker that runs.
type running struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	err    error
}

// stop stops the worker and returns what its Run returned.
func (r *running) stop() error {
	r.cancel()
	r.wg.Wait()
	return r.err
}

// runs runs a worker to the end of t, or until it is stopped.
func runs[T any](t *testing.T, w *task.Worker[T]) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{cancel: cancel}
	r.wg.Go(func() { r.err = w.Run(ctx) })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	testkit.Wait(t, w.Ready())
	return r
}

// queued counts the tasks in the queue, waiting or in hand.
func (w *world) queued(t *testing.T) int {
	t.Helper()
	return int(w.info(t, wire.QueueStream(kindName)).State.Msgs)
}

// waitQueued waits until n tasks are in the queue.
func (w *world) waitQueued(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, func() bool { return w.queued(t) == n }, fmt.Sprintf("%d tasks are queued", n))
}

func (w *world) info(t *testing.T, stream string) *jetstream.StreamInfo {
	t.Helper()
	s, err := w.JS.Stream(testkit.Context(t), wire.StreamName(stream))
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

// deadLetters returns every record of hozo.dlq.
func (w *world) deadLetters(t *testing.T) []*jetstream.RawStreamMsg {
	t.Helper()
	info := w.info(t, wire.DeadStream)
	s, err := w.JS.Stream(testkit.Context(t), wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		msg, err := s.GetMsg(testkit.Context(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, msg)
	}
	return all
}

// waitDead waits for one dead letter.
func (w *world) waitDead(t *testing.T) *jetstream.RawStreamMsg {
	t.Helper()
	testkit.Eventually(t, func() bool { return w.info(t, wire.DeadStream).State.Msgs > 0 }, "a dead letter is stored")
	w.waitQueued(t, 0)
	all := w.deadLetters(t)
	if len(all) != 1 {
		t.Fatalf("there are %d dead letters", len(all))
	}
	return all[0]
}

// child starts this test as another program, with a grant of its own.
func (w *world) child(t *testing.T, name string, env ...string) *testkit.Process {
	t.Helper()
	return w.childAs(t, w.grant(t), name, env...)
}

// childAs starts this test as another program with a grant.
func (w *world) childAs(t *testing.T, g wire.Grant, name string, env ...string) *testkit.Process {
	t.Helper()
	grant, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "grant.json")
	if err := os.WriteFile(path, grant, 0o600); err != nil {
		t.Fatal(err)
	}
	return testkit.Start(t, name, append(env, wire.EnvBus+"="+w.URL, wire.EnvGrant+"="+path)...)
}

// boundedGrant is that of a service whose queue has a bound.
func boundedGrant(most int64) wire.Grant {
	return wire.Grant{
		Service: "images", Handles: []string{kindName}, Enqueues: []string{kindName},
		Queues: []wire.TaskQueue{{Name: kindName, Kinds: []string{kindName}, Max: most}},
	}
}
