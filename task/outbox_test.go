package task_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
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
	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of database/sql
	"github.com/nats-io/nats.go/jetstream"
)

// Environment of relayChild.
const (
	envDatabase = "TASK_TEST_DATABASE" // URL
	envPause    = "TASK_TEST_PAUSE"    // the step at which it stops until it is continued
)

// relayChild relays until it is killed, or kills or stops itself at a step.
func relayChild() {
	ctx := context.Background()
	kill, paused := killAt(os.Getenv(envStep)), false
	task.OnStep(func(name string) {
		kill(name)
		if name == os.Getenv(envPause) && !paused {
			paused = true
			fmt.Println("paused")
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
	})
	db, err := sql.Open("pgx", os.Getenv(envDatabase))
	var conn *bus.Conn
	if err == nil {
		conn, err = bus.FromEnv(ctx, nil)
	}
	if err == nil {
		err = task.NewRelay(conn, db, task.RelayConfig{Interval: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))}).Run(ctx)
	}
	fmt.Println(err)
	os.Exit(1)
}

// shop is a world with a database that has an outbox.
type shop struct {
	*world
	pg *testkit.TestPostgres
	db *sql.DB
}

func newShop(t *testing.T, b *testkit.TestBroker) *shop {
	t.Helper()
	s := &shop{world: worldOf(t, b), pg: testkit.Postgres(t)}
	db, err := sql.Open("pgx", s.pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s.db = db
	for range 2 { // it may be there
		if err := task.CreateOutbox(t.Context(), db); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// relays runs a relay to the end of t.
func (s *shop) relays(t *testing.T) *task.Relay {
	t.Helper()
	r := task.NewRelay(s.join(t), s.db, task.RelayConfig{Interval: 10 * time.Millisecond, Logger: testkit.Logger(t)})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	testkit.Wait(t, r.Ready())
	return r
}

func (s *shop) relayChild(t *testing.T, env ...string) *testkit.Process {
	t.Helper()
	return s.child(t, "relay", append(env, envDatabase+"="+s.pg.URL)...)
}

// rows counts what the outbox holds.
func (s *shop) rows(t *testing.T) (n int) {
	t.Helper()
	if err := s.db.QueryRowContext(testkit.Context(t), `SELECT count(*) FROM hozo_outbox`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *shop) waitRows(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, func() bool { return s.rows(t) == n }, fmt.Sprintf("the outbox holds %d rows", n))
}

// enqueue writes tasks with the paths into the outbox, in one transaction.
func (s *shop) enqueue(t *testing.T, kind task.Kind[image], paths []string, opts ...task.Option) (ids []string) {
	t.Helper()
	tx, err := s.db.BeginTx(testkit.Context(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		id, err := kind.EnqueueTx(t.Context(), tx, image{path}, opts...)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// diary counts how often the task of each path was run, and in which order.
type diary struct {
	mu    sync.Mutex
	paths []string
}

func (d *diary) work(_ context.Context, one task.Task[image]) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paths = append(d.paths, one.Args.Path)
	return nil
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.paths)
}

func numbers(from, to int) []string {
	var all []string
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprintf("%05d", i))
	}
	return all
}

// plain keeps nothing of its tasks, so that nothing but the outbox's mark knows of one that is done.
var plain = task.NewKind[image](kindName, task.Config{})

func TestTaskOfATransactionIsEnqueuedIfItCommits(t *testing.T) {
	t.Parallel()
	s := newShop(t, testkit.Broker(t))
	s.relays(t)
	ran := &diary{}
	runs(t, task.NewWorker(s.conn, plain, ran.work, task.WorkerConfig{Concurrency: 1}))

	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.EnqueueTx(t.Context(), tx, image{"rolled back"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	pgxConn, err := pgx.Connect(t.Context(), s.pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pgxConn.Close(context.WithoutCancel(t.Context()))
	err = pgx.BeginFunc(t.Context(), pgxConn, func(tx pgx.Tx) error {
		_, err := plain.EnqueueTx(t.Context(), task.Pgx(tx), image{"by pgx"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.enqueue(t, plain, numbers(0, 2000)) // more than a batch
	s.waitRows(t, 0)
	s.waitTasks(t, 0)
	if got, want := ran.all(), append([]string{"by pgx"}, numbers(0, 2000)...); !slices.Equal(got, want) {
		t.Errorf("%d tasks were run, want %d in the order of the rows", len(got), len(want))
	}
}

// waitTasks waits until n tasks are in the queue, besides the outbox's mark.
func (s *shop) waitTasks(t *testing.T, n int) {
	t.Helper()
	s.waitQueued(t, n+1)
}

func TestOptionsWaitInTheOutbox(t *testing.T) {
	t.Parallel()
	s := newShop(t, testkit.Broker(t))
	kind := task.NewKind[image](kindName, task.Config{Keep: time.Hour})
	later := s.enqueue(t, kind, []string{"later"}, task.In(time.Hour), task.Key("customer"), task.TTL(time.Minute))[0]
	twins := s.enqueue(t, kind, []string{"a", "b"}, task.Unique("twin"))
	s.enqueue(t, kind, []string{"c", "d"}, task.ID("one"))
	s.enqueue(t, kind, []string{"e"}, task.ID("one"))
	foreign := task.NewKind[image]("image.other", task.Config{})
	s.enqueue(t, foreign, []string{"of nobody"})
	if _, err := s.db.ExecContext(t.Context(), `INSERT INTO hozo_outbox (row, task, kind, args, options) VALUES ('r', 'bad', $1, '', '{"priority": 9}')`, kindName); err != nil {
		t.Fatal(err)
	}
	s.relays(t)
	s.waitRows(t, 2) // the bad one and that of nobody
	s.waitTasks(t, 3)
	var failed string
	if err := s.db.QueryRowContext(t.Context(), `SELECT failed FROM hozo_outbox WHERE task = 'bad'`).Scan(&failed); err != nil || !strings.Contains(failed, "priority 9") {
		t.Errorf("the bad row says %q, %v", failed, err)
	}
	for id, want := range map[string]task.State{later: task.Scheduled, twins[0]: task.Pending, "one": task.Pending} {
		if got, err := kind.Find(s.conn, id).Status(testkit.Context(t)); err != nil || got.State != want {
			t.Errorf("task %s is %s, %v, want %s", id, got.State, err, want)
		}
	}
	stored := s.raw(t, wire.ScheduleSubject(kindName, kindName, later))
	expires, err := time.Parse(time.RFC3339, stored.Header.Get(wire.HeaderExpires))
	if err != nil || stored.Header.Get(wire.HeaderKey) != "customer" || time.Until(expires) < time.Hour {
		t.Errorf("the later one has the headers %v", stored.Header)
	}
	ran := &diary{}
	runs(t, task.NewWorker(s.conn, kind, ran.work, task.WorkerConfig{Concurrency: 1}))
	s.waitTasks(t, 1)
	if got := ran.all(); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("of what is unique and what has an id %q were run, want the first of each", got)
	}

	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := task.NewKind[[]byte](kindName, task.Config{}).EnqueueTx(t.Context(), tx, make([]byte, 1<<20)); fault.Code(err) != bus.CodeTooLarge {
		t.Errorf("arguments of a mebibyte: %v", err)
	}
	if _, err := kind.EnqueueTx(t.Context(), tx, image{}, task.In(-time.Second)); fault.Code(err) != task.CodeBadOption {
		t.Errorf("a delay into the past: %v", err)
	}
}

// A relay dies between the queue and the database, its tasks are done, and the broker forgets that it had them.
func TestKilledRelayDoublesNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t, testkit.BrokerProcess(t))
	s.enqueue(t, plain, numbers(0, 50))
	dead := s.relayChild(t, envStep+"=rows of the outbox in the queue")
	testkit.Wait(t, dead.Done)
	s.waitTasks(t, 50)
	if n := s.rows(t); n != 50 {
		t.Fatalf("the outbox holds %d rows, so the relay was not killed in between", n)
	}
	ran := &diary{}
	runs(t, task.NewWorker(s.conn, plain, ran.work, task.WorkerConfig{Concurrency: 1}))
	s.waitTasks(t, 0)
	s.Kill(t)
	s.Start(t)
	s.enqueue(t, plain, numbers(50, 60))
	s.relays(t)
	s.waitRows(t, 0)
	s.waitTasks(t, 0)
	if got, want := ran.all(), numbers(0, 60); !slices.Equal(got, want) {
		t.Errorf("%d tasks were run, want each of %d once: %q", len(got), len(want), got)
	}
}

// A relay is stopped before it stores, the database gives its rows to another one, and it goes on when they are done.
func TestLateRelayStoresNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t, testkit.Broker(t))
	s.enqueue(t, plain, []string{"a"}, task.Unique("u"))
	late := s.relayChild(t, envPause+"=lock taken")
	testkit.Eventually(t, func() bool { return strings.Contains(late.Output(), "paused") }, "the relay holds the row")
	if _, err := s.db.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'`); err != nil {
		t.Fatal(err)
	}
	ran := &diary{}
	runs(t, task.NewWorker(s.conn, plain, ran.work, task.WorkerConfig{Concurrency: 1}))
	s.relays(t)
	s.waitRows(t, 0)
	s.enqueue(t, plain, []string{"b"}) // so that the mark does not name the row any more
	s.waitRows(t, 0)
	s.waitTasks(t, 0)
	late.Signal(t, syscall.SIGCONT)
	testkit.Eventually(t, func() bool { return strings.Contains(late.Output(), "the outbox waits") }, "the late relay has failed")
	s.enqueue(t, plain, []string{"c"})
	s.waitRows(t, 0)
	s.waitTasks(t, 0)
	if got := ran.all(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("%q were run, want each once", got)
	}
}

func TestSeveralRelaysThatAreKilledStoreEachRowOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t, testkit.Broker(t))
	const rows = 2000
	ran := &diary{}
	runs(t, task.NewWorker(s.conn, plain, ran.work, task.WorkerConfig{}))
	children := []*testkit.Process{s.relayChild(t), s.relayChild(t)}
	for from := 0; from < rows; from += 100 {
		s.enqueue(t, plain, numbers(from, from+100))
		if from%400 == 0 {
			i := from / 400 % len(children)
			children[i].Kill(t)
			children[i] = s.relayChild(t)
		}
		if from == rows/2 {
			s.pg.Kill(t)
			s.pg.Start(t)
			s.db.SetMaxIdleConns(0) // this test's own connections are broken, too
		}
	}
	s.relays(t)
	s.waitRows(t, 0)
	s.waitTasks(t, 0)
	times := map[string]int{}
	for _, path := range ran.all() {
		times[path]++
	}
	maps.DeleteFunc(times, func(_ string, n int) bool { return n == 1 })
	if got := len(ran.all()); got != rows || len(times) > 0 {
		t.Errorf("%d tasks were run, want %d; more than once: %v", got, rows, times)
	}
}

func TestMissingOutboxIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db, err := sql.Open("pgx", testkit.Postgres(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	said := &lines{}
	r := task.NewRelay(w.conn, db, task.RelayConfig{Logger: slog.New(slog.NewTextHandler(said, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = r.Run(ctx) })
	testkit.Eventually(t, func() bool {
		return strings.Contains(said.String(), "task/no-outbox") || strings.Contains(said.String(), "has no outbox")
	}, "the log says that there is no outbox")
}

// lines keeps what is logged.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// raw is the message that the queue stores on a subject.
func (s *shop) raw(t *testing.T, subject string) *jetstream.RawStreamMsg {
	t.Helper()
	stream, err := s.JS.Stream(testkit.Context(t), wire.StreamName(wire.QueueStream(kindName)))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(testkit.Context(t), subject)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
