package sink_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
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
