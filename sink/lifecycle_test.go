package sink_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/file"
	"github.com/hozo-dev/hozo/wire"
)

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

func (brokenTarget) Flush(context.Context, string) (uint64, error) { panic("never ready") }

func (brokenTarget) Close() error { return nil }

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
