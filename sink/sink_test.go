package sink_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/file"
	"github.com/hozo-dev/hozo/sink/sqlite"
	"github.com/hozo-dev/hozo/wire"
)

const stream = "events.routed"

func TestMain(m *testing.M) { testkit.Main(m) }

// rig is a broker with a stream, and what a sink of it needs.
type rig struct {
	t      *testing.T
	broker *testkit.TestBroker
	grant  wire.Grant
	path   string // of the database
}

func newRig(t *testing.T, b *testkit.TestBroker) *rig {
	t.Helper()
	grant := b.Grant(t, wire.Grant{Service: "archive", Consumes: []wire.Source{{Stream: stream, Ordered: true}}})
	return &rig{t, b, grant, filepath.Join(t.TempDir(), "events.db")}
}

// publish stores frames of n events each that count on from first, and returns the number of the next.
func (r *rig) publish(first, frames, n int) int {
	r.t.Helper()
	builder := bus.NewBuilder(wire.CodecZstd)
	for range frames {
		builder.Reset()
		for range n {
			builder.Add(fmt.Appendf(nil, `{"n":%d}`, first))
			first++
		}
		if _, err := r.broker.JS.Publish(testkit.Context(r.t), stream+".push", builder.Frame()); err != nil {
			r.t.Fatal(err)
		}
	}
	return first
}

func (r *rig) connect() *bus.Conn {
	r.t.Helper()
	conn, err := bus.Connect(testkit.Context(r.t), bus.Config{URL: r.broker.URL, Grant: r.grant, Logger: testkit.Logger(r.t)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the broker may be gone
	})
	return conn
}

func (r *rig) database() *sqlite.Target {
	r.t.Helper()
	target, err := sqlite.Open(r.t.Context(), r.path, sqlite.Config{Columns: map[string]string{"n": "n"}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = target.Close() }) // closed by some tests before
	return target
}

// start runs a sink of the stream and returns how to stop it, which gives Run's error.
func (r *rig) start(conn *bus.Conn, target sink.Target, cfg sink.Config) (*sink.Sink, func() error) {
	r.t.Helper()
	cfg.Logger = testkit.Logger(r.t)
	s, err := sink.New(conn, r.grant.Consumes[0], target, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	var ended error
	wg.Go(func() {
		if ended = s.Run(ctx); ended != nil {
			r.t.Logf("the sink ended with %v", ended)
		}
	})
	stop := func() error {
		cancel()
		wg.Wait()
		return ended
	}
	r.t.Cleanup(func() { _ = stop() })
	return s, stop
}

func (r *rig) numbers() []int {
	r.t.Helper()
	db, err := sql.Open("sqlite", "file:"+r.path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(r.t.Context(), `SELECT n FROM events ORDER BY rowid`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	var all []int
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// awaitRows waits until the database holds n rows, which must be the numbers from 0 in order.
func (r *rig) awaitRows(n int) {
	r.t.Helper()
	testkit.Eventually(r.t, func() bool { return len(r.numbers()) >= n }, fmt.Sprintf("%d rows", n))
	got := r.numbers()
	want := make([]int, n)
	for i := range want {
		want[i] = i
	}
	if !slices.Equal(got, want) {
		r.t.Fatalf("%d rows, not the numbers 0 to %d in order: %.200v", len(got), n-1, got)
	}
}

// wrapped is a target that a test interferes with.
type wrapped struct {
	sink.Target
	write func(ctx context.Context, b sink.Batch) (uint64, error)
	flush func(ctx context.Context, source string) (uint64, error)
}

func (w *wrapped) Write(ctx context.Context, b sink.Batch) (uint64, error) {
	if w.write != nil {
		return w.write(ctx, b)
	}
	return w.Target.Write(ctx, b)
}

func (w *wrapped) Flush(ctx context.Context, source string) (uint64, error) {
	if w.flush != nil {
		return w.flush(ctx, source)
	}
	return w.Target.Flush(ctx, source)
}

func TestSinkStoresTheStreamInOrderAndGoesOnAfterRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	next := r.publish(0, 20, 7)
	conn := r.connect()
	target := r.database()
	s, stop := r.start(conn, target, sink.Config{})
	testkit.Wait(t, s.Ready())
	r.awaitRows(next)
	if err := stop(); err != nil {
		t.Fatalf("stop gave %v", err)
	}
	if got := conn.Counters().EventsIn.Load(); got != uint64(next) {
		t.Errorf("%d events counted, want %d", got, next)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	next = r.publish(next, 20, 3)
	r.start(r.connect(), r.database(), sink.Config{})
	r.awaitRows(next)
}

func TestFailingTargetIsTriedUntilItWorks(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	next := r.publish(0, 5, 2)
	database := r.database()
	failures := 0
	target := &wrapped{Target: database, write: func(ctx context.Context, b sink.Batch) (uint64, error) {
		if failures++; failures%3 != 0 {
			if failures%2 == 0 { // committed, and the answer lost
				_, _ = database.Write(ctx, b)
			}
			return 0, errors.New("no space left on device")
		}
		return database.Write(ctx, b)
	}}
	r.start(r.connect(), target, sink.Config{Backoff: time.Millisecond, BatchBytes: 20})
	r.awaitRows(next)
}

func TestPoisonIsParkedAndItsNeighboursLand(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	r.publish(0, 1, 3)
	builder := bus.NewBuilder(wire.CodecZstd)
	for _, e := range []string{`{"n":3}`, `{"n":`, `{"n":4}`} {
		builder.Add([]byte(e))
	}
	if _, err := r.broker.JS.Publish(t.Context(), stream, builder.Frame()); err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), builder.Frame()...)
	damaged[len(damaged)-1] ^= 1
	if _, err := r.broker.JS.Publish(t.Context(), stream, damaged); err != nil {
		t.Fatal(err)
	}
	next := r.publish(5, 1, 2)
	conn := r.connect()
	r.start(conn, r.database(), sink.Config{})
	r.awaitRows(next)
	dead, err := r.broker.JS.Stream(t.Context(), wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	for id, code := range map[wire.EventID]string{
		{Stream: stream, Seq: 2, Index: 1}: "sqlite/invalid-json",
		{Stream: stream, Seq: 3, Index: 0}: bus.CodeBadFrame,
	} {
		msg, err := dead.GetLastMsgForSubject(t.Context(), wire.DeadSubject("archive", id))
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if got := msg.Header.Get(wire.HeaderCode); got != code {
			t.Errorf("%s is parked under %q, want %q", id, got, code)
		}
	}
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 9 }, "every event counted")
}

func TestStopFlushesWhatIsInHand(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	r.publish(0, 10, 5)
	dir := t.TempDir()
	lake, err := file.Open(dir, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan uint64, 10) // one a frame
	target := &wrapped{Target: lake, write: func(ctx context.Context, b sink.Batch) (uint64, error) {
		w, err := lake.Write(ctx, b)
		taken <- b.Last()
		return w, err
	}}
	conn := r.connect()
	_, stop := r.start(conn, target, sink.Config{FlushAge: time.Hour})
	for testkit.Wait(t, taken) < 10 {
	}
	consumer, err := r.broker.JS.Consumer(t.Context(), wire.StreamName(stream), "archive")
	if err != nil {
		t.Fatal(err)
	}
	if floor := consumer.CachedInfo().AckFloor.Stream; floor != 0 {
		t.Fatalf("the broker was told %d before anything was durable", floor)
	}
	if n := conn.Counters().EventsIn.Load(); n != 0 {
		t.Fatalf("%d events counted before they were durable", n)
	}
	if err := stop(); err != nil {
		t.Fatalf("stop gave %v", err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, stream, "*-00000000000000000010.ndjson.zst")); len(names) != 1 {
		t.Fatalf("no file up to frame 10: %v", names)
	}
	if n := conn.Counters().EventsIn.Load(); n != 50 {
		t.Fatalf("%d events counted, want 50", n)
	}
	if err := lake.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGatheredRowsAreFlushedByAge(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	r.publish(0, 1, 1)
	dir := t.TempDir()
	lake, err := file.Open(dir, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	flushed := make(chan uint64, 1)
	target := &wrapped{Target: lake, flush: func(ctx context.Context, source string) (uint64, error) {
		w, err := lake.Flush(ctx, source)
		select {
		case flushed <- w:
		default:
		}
		return w, err
	}}
	_, stop := r.start(r.connect(), target, sink.Config{FlushAge: 30 * time.Millisecond})
	if w := testkit.Wait(t, flushed); w != 1 {
		t.Fatalf("flushed up to %d, want 1", w)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := lake.Close(); err != nil {
		t.Fatal(err)
	}
}

// A gathering target holds far more than the reader's window; reading must go on all the same.
func TestGatheringMoreThanTheReadersWindowDoesNotStall(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	const frames = 60 // of 250 KB that do not compress: 15 MB
	event := make([]byte, 250<<10)
	for i := range event {
		event[i] = byte('a' + i%26)
	}
	builder := bus.NewBuilder(wire.CodecNone)
	for range frames {
		builder.Reset()
		builder.Add(event)
		if _, err := r.broker.JS.Publish(testkit.Context(t), stream, builder.Frame()); err != nil {
			t.Fatal(err)
		}
	}
	lake, err := file.Open(t.TempDir(), file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan uint64, frames) // one a batch at most
	target := &wrapped{Target: lake, write: func(ctx context.Context, b sink.Batch) (uint64, error) {
		w, err := lake.Write(ctx, b)
		taken <- b.Last()
		return w, err
	}}
	_, stop := r.start(r.connect(), target, sink.Config{FlushAge: time.Hour})
	for testkit.Wait(t, taken) < frames {
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := lake.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSuccessorEndsAZombie(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	next := r.publish(0, 2, 2)
	old := r.database()
	_, stopOld := r.start(r.connect(), old, sink.Config{})
	r.awaitRows(next)
	young := r.database()
	if _, err := young.Watermark(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	next = r.publish(next, 1, 1)
	s, stop := r.start(r.connect(), young, sink.Config{})
	testkit.Wait(t, s.Ready())
	// Nothing more is published: what one of the two has taken, the other must miss all the same.
	r.awaitRows(next)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := stopOld(); err != nil && !errors.Is(err, sink.ErrFenced) {
		t.Fatalf("the zombie ended with %v", err)
	}
}

func TestLostRowsAreReadAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	next := r.publish(0, 6, 2)
	database := r.database()
	var held []sink.Batch // what a gathering target would hold
	lost := false
	target := &wrapped{Target: database, write: func(ctx context.Context, b sink.Batch) (uint64, error) {
		if !lost && len(held) == 0 {
			held = append(held, b)
			return 0, nil
		}
		if !lost {
			lost = true
			return 0, fmt.Errorf("sync: %w", sink.ErrLost)
		}
		return database.Write(ctx, b)
	}}
	r.start(r.connect(), target, sink.Config{BatchBytes: 1, Backoff: time.Millisecond})
	r.awaitRows(next)
}

func TestBrokerRestartsNeitherLoseNorRepeat(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.BrokerProcess(t))
	r.start(r.connect(), r.database(), sink.Config{})
	next := 0
	for range 3 {
		next = r.publish(next, 15, 3)
		r.broker.Kill(t)
		r.broker.Start(t)
		testkit.Eventually(t, func() bool {
			_, err := r.broker.JS.AccountInfo(t.Context())
			return err == nil
		}, "the broker is back")
	}
	next = r.publish(next, 5, 3)
	r.awaitRows(next)
}

func TestRunEndsWhenStoppedBeforeTheTargetWorks(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	tried := make(chan struct{}, 1)
	target := brokenTarget{tried}
	_, stop := r.start(r.connect(), target, sink.Config{Backoff: time.Millisecond})
	testkit.Wait(t, tried)
	if err := stop(); err != nil {
		t.Fatalf("stop gave %v", err)
	}
}

type brokenTarget struct{ tried chan struct{} }

func (b brokenTarget) Watermark(context.Context, string) (uint64, error) {
	select {
	case b.tried <- struct{}{}:
	default:
	}
	return 0, errors.New("no such host")
}
func (brokenTarget) Write(context.Context, sink.Batch) (uint64, error) { panic("never ready") }
func (brokenTarget) Flush(context.Context, string) (uint64, error)     { panic("never ready") }
func (brokenTarget) Close() error                                      { return nil }

func TestSinkStartsAndStopsAtAnyMoment(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	var mu sync.Mutex
	n := 0
	testkit.Stress(t, func() lifecycle.Runner {
		mu.Lock()
		defer mu.Unlock()
		n++
		r := &rig{t: t, broker: b, path: filepath.Join(t.TempDir(), "events.db")}
		r.grant = b.Grant(t, wire.Grant{Service: fmt.Sprint("archive", n), Consumes: []wire.Source{{Stream: stream, Ordered: true}}})
		s, err := sink.New(r.connect(), r.grant.Consumes[0], r.database(), sink.Config{})
		if err != nil {
			t.Error(err)
		}
		return s
	})
}

func TestBadConfigNamesEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := sink.New(nil, wire.Source{Stream: stream}, nil, sink.Config{BatchBytes: -1, FlushAge: -1})
	if err == nil || !strings.Contains(err.Error(), "BatchBytes") || !strings.Contains(err.Error(), "FlushAge") {
		t.Fatalf("got %v", err)
	}
}
