package bus_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// TestBrokerCrashesLoseAndDoubleNothing runs a producer, a stage of two instances and a sink while the broker is killed
// and started again.
func TestBrokerCrashesLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	const n, kills, writers = 4000, 3, 4
	sink := wire.Source{Stream: "events.done", Durable: "store", Ordered: true}
	store := dial(t, b, wire.Grant{Service: "store", Consumes: []wire.Source{sink}})
	for range 2 {
		start(t, newStage(t, dial(t, b, workerGrant()), rawTopic, copyItem, bus.StageConfig{Workers: 2}))
	}
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{FrameBytes: 512})
	start(t, p)

	var writing, killing sync.WaitGroup
	var written atomic.Int64
	progress := make(chan struct{}, 1) // a hint
	for w := range writers {
		writing.Go(func() {
			for i := w; i < n; i += writers {
				if _, err := p.Publish(testkit.Context(t), encoded(t, item{N: i, Text: strings.Repeat("x", 100)})); err != nil {
					t.Errorf("publish %d: %v", i, err)
					return
				}
				written.Add(1)
				select {
				case progress <- struct{}{}:
				default:
				}
			}
		})
	}
	killing.Go(func() {
		for i := range kills {
			for written.Load() < int64((i+1)*n/(kills+1)) {
				testkit.Wait(t, progress)
			}
			b.Kill(t)
			b.Start(t)
		}
	})

	f := follow(t, store, sink, 0)
	landed := newLedger(n)
	last := uint64(0)
	for len(landed.seen) < n {
		frame, err := f.Next(testkit.Context(t))
		if err != nil {
			t.Fatalf("after %d items and frame %d: %v", len(landed.seen), last, err)
		}
		if frame.Seq != last+1 {
			t.Fatalf("frame %d came after %d", frame.Seq, last)
		}
		last = frame.Seq
		countItems(t, frame, landed)
	}
	writing.Wait()
	killing.Wait()
	settled(t, b, "events.raw", "worker")
	landed.exact(t)
	items(t, b, "events.done", n).exact(t)
}

func countItems(t testing.TB, f *bus.Frame, l *ledger) {
	t.Helper()
	events, err := f.Events()
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range events {
		var v item
		if _, err := fmt.Sscanf(string(data), `{"n":%d`, &v.N); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		l.add(v.N)
	}
}

// TestFrameOfADeadInstanceIsHandledByAnother: the first instance loses its connection with frames in hand and never
// gets it back.
func TestFrameOfADeadInstanceIsHandledByAnother(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const n = 200
	fill(t, producer(t, b), "events.raw", n, 10)
	line := newCutter(t, b.URL)
	begun := make(chan struct{}, n) // one slot an event
	hang := make(chan struct{})
	start(t, newStage(t, dialThrough(t, line, b.Grant(t, workerGrant())), rawTopic,
		func(ctx context.Context, e bus.Event[item], out *bus.Out) error {
			begun <- struct{}{}
			<-hang
			return copyItem(ctx, e, out)
		}, bus.StageConfig{Workers: 2, Drain: quick}))
	testkit.Wait(t, begun)
	line.cut(true)
	start(t, newStage(t, dial(t, b, workerGrant()), rawTopic, copyItem, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	close(hang)
	items(t, b, "events.done", n).exact(t)
}

// TestCutConnectionsLoseAndDoubleNothing cuts the stage's connection again and again while it works.
func TestCutConnectionsLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const n, cuts = 3000, 10
	fill(t, producer(t, b), "events.raw", n, 10)
	line := newCutter(t, b.URL)
	var handled atomic.Int64
	step := make(chan struct{}, 1) // a hint
	start(t, newStage(t, dialThrough(t, line, b.Grant(t, workerGrant())), rawTopic,
		func(ctx context.Context, e bus.Event[item], out *bus.Out) error {
			if handled.Add(1)%(n/cuts) == 0 {
				select {
				case step <- struct{}{}:
				default:
				}
			}
			return copyItem(ctx, e, out)
		}, bus.StageConfig{Workers: 4}))
	for range cuts - 1 {
		testkit.Wait(t, step)
		line.cut(false)
	}
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", n).exact(t)
}

// TestStageWaitsWhileItsOutputIsFull: nothing is lost while the output stream takes nothing, and the rest lands when
// there is room again.
func TestStageWaitsWhileItsOutputIsFull(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "events.done", MaxBytes: 4 << 10, Dedupe: 10 * time.Minute})
	c := dial(t, b, workerGrant())
	const n = 2000
	fill(t, producer(t, b), "events.raw", n, 20)
	start(t, newStage(t, c, rawTopic, copyItem, bus.StageConfig{Workers: 2}))
	testkit.Eventually(t, func() bool {
		s, err := b.JS.Stream(testkit.Context(t), "events_done")
		return err == nil && s.CachedInfo().State.Bytes > 3<<10
	}, "the output stream is full")
	if got := c.Counters().EventsIn.Load(); got == n {
		t.Fatal("everything fitted: the test proves nothing")
	}
	b.Declare(t, broker.StreamSpec{Name: "events.done", MaxBytes: 16 << 20, Dedupe: 10 * time.Minute})
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", n).exact(t)
	if got := stored(t, b, wire.DeadStream); len(got) != 0 {
		t.Errorf("%d events were parked", len(got))
	}
}

// TestStageKeepsASlowFrameAlive: a frame that takes longer than the consumer's acknowledgement wait is delivered once.
func TestStageKeepsASlowFrameAlive(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	fill(t, producer(t, b), "events.raw", 3, 1)
	var calls atomic.Int32
	g := workerGrant()
	for range 2 { // the second one would get what the first one seems to have dropped
		start(t, newStage(t, dial(t, b, g), rawTopic, func(ctx context.Context, e bus.Event[item], out *bus.Out) error {
			if calls.Add(1); e.Value.N == 0 {
				pause := time.NewTimer(7 * time.Second) // the acknowledgement wait is 5 s
				defer pause.Stop()
				select {
				case <-pause.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return copyItem(ctx, e, out)
		}, bus.StageConfig{Workers: 1}))
	}
	settled(t, b, "events.raw", "worker")
	if got := calls.Load(); got != 3 {
		t.Errorf("3 events were handled %d times", got)
	}
	items(t, b, "events.done", 3).exact(t)
}

// TestStoppingStageFinishesWhatItBeganAndGivesBackTheRest: another instance has the rest long before the
// acknowledgement wait of 5 s is over.
func TestStoppingStageFinishesWhatItBeganAndGivesBackTheRest(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const n = 100
	fill(t, producer(t, b), "events.raw", n, 2)
	begun, release := make(chan struct{}, n), make(chan struct{}) // one slot an event
	first := dial(t, b, workerGrant())
	stop := start(t, newStage(t, first, rawTopic, func(ctx context.Context, e bus.Event[item], out *bus.Out) error {
		begun <- struct{}{}
		<-release
		if ctx.Err() != nil {
			t.Error("the context ended at once with the stop")
		}
		return copyItem(ctx, e, out)
	}, bus.StageConfig{Workers: 1}))
	testkit.Wait(t, begun)
	var stopping sync.WaitGroup
	stopping.Go(stop)
	began := time.Now()
	rest := newLedger(n - 2)
	start(t, newStage(t, dial(t, b, workerGrant()), rawTopic, func(ctx context.Context, e bus.Event[item], out *bus.Out) error {
		rest.add(e.Value.N)
		return copyItem(ctx, e, out)
	}, bus.StageConfig{}))
	close(release)
	stopping.Wait()
	testkit.Wait(t, rest.full)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the rest came after %v", took)
	}
	settled(t, b, "events.raw", "worker")
	if got := first.Counters().EventsIn.Load(); got != 2 {
		t.Errorf("the first instance finished %d events, want the 2 of its frame", got)
	}
	items(t, b, "events.done", n).exact(t)
}

// TestStopThatOutlastsItsGraceGivesTheFrameBack: nothing of it is stored or acknowledged.
func TestStopThatOutlastsItsGraceGivesTheFrameBack(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	fill(t, producer(t, b), "events.raw", 2, 2)
	begun := make(chan struct{}, 1) // a hint
	stop := start(t, newStage(t, dial(t, b, workerGrant()), rawTopic,
		func(ctx context.Context, e bus.Event[item], out *bus.Out) error {
			if e.Value.N == 1 {
				begun <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}
			return copyItem(ctx, e, out)
		}, bus.StageConfig{Workers: 1, Drain: quick}))
	testkit.Wait(t, begun)
	stop()
	if got := stored(t, b, "events.done"); len(got) != 0 {
		t.Errorf("%d events of an unfinished frame are stored", len(got))
	}
	if got := stored(t, b, wire.DeadStream); len(got) != 0 {
		t.Errorf("%d events are parked because of the stop", len(got))
	}
	start(t, newStage(t, dial(t, b, workerGrant()), rawTopic, copyItem, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", 2).exact(t)
}

func TestStageAndServerStandStartsAndStops(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, workerGrant())
	testkit.Stress(t, func() lifecycle.Runner { return newStage(t, c, rawTopic, copyItem, bus.StageConfig{}) })
	s := server(t, b)
	testkit.Stress(t, func() lifecycle.Runner {
		return double.Serve(s, func(_ context.Context, req item) (item, error) { return req, nil }, bus.ServeConfig{})
	})
	p := producer(t, b)
	testkit.Stress(t, func() lifecycle.Runner { return newPublisher(t, p, "events.raw", bus.PublisherConfig{}) })
}
