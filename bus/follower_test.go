package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"
)

var sinkSource = wire.Source{Stream: "events.raw", Durable: "store", Ordered: true}

func sinkConn(t testing.TB, b *testkit.TestBroker) *bus.Conn {
	return dial(t, b, wire.Grant{Service: "store", Consumes: []wire.Source{sinkSource}})
}

func follow(t testing.TB, c *bus.Conn, src wire.Source, after uint64) *bus.Follower {
	t.Helper()
	f, err := c.Follow(testkit.Context(t), src, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// read takes n frames and checks that their sequences follow each other from first.
func read(t testing.TB, f *bus.Follower, first, n uint64) {
	t.Helper()
	for seq := first; seq < first+n; seq++ {
		frame, err := f.Next(testkit.Context(t))
		if err != nil {
			t.Fatalf("frame %d: %v", seq, err)
		}
		if frame.Seq != seq {
			t.Fatalf("frame %d came, want %d", frame.Seq, seq)
		}
	}
}

func ackFloor(t testing.TB, b *testkit.TestBroker) func() uint64 {
	return func() uint64 {
		c, err := b.JS.Consumer(testkit.Context(t), "events_raw", "store")
		if err != nil {
			return 0
		}
		return c.CachedInfo().AckFloor.Stream
	}
}

func TestFollowerReadsInOrderFromItsWatermark(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := sinkConn(t, b)
	fill(t, producer(t, b), "events.raw", 1000, 1)
	f := follow(t, c, sinkSource, 0)
	read(t, f, 1, 700)
	if got := f.Pending(); got != 300 {
		t.Errorf("%d frames pending, want 300", got)
	}
	if err := f.Commit(testkit.Context(t), 500); err != nil {
		t.Fatal(err)
	}
	floor := ackFloor(t, b)
	testkit.Eventually(t, func() bool { return floor() == 500 }, "the broker knows the position")
	f.Close()
	for _, after := range []uint64{500, 650, 10} { // as committed; ahead of it; behind it
		g := follow(t, c, sinkSource, after)
		read(t, g, after+1, 1000-after)
		g.Close()
	}
}

func TestFollowerKeepsAConsumerThatStandsAtItsWatermark(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := sinkConn(t, b)
	fill(t, producer(t, b), "events.raw", 10, 1)
	f := follow(t, c, sinkSource, 0)
	read(t, f, 1, 10)
	if err := f.Commit(testkit.Context(t), 10); err != nil {
		t.Fatal(err)
	}
	f.Close()
	floor := ackFloor(t, b)
	testkit.Eventually(t, func() bool { return floor() == 10 }, "the broker knows the position")
	created := func() string {
		info, err := b.JS.Consumer(testkit.Context(t), "events_raw", "store")
		if err != nil {
			t.Fatal(err)
		}
		return info.CachedInfo().Created.String()
	}
	before := created()
	fill(t, producer(t, b), "events.raw", 5, 1)
	read(t, follow(t, c, sinkSource, 10), 11, 5)
	if after := created(); after != before {
		t.Errorf("the consumer was made anew at %s", after)
	}
}

func TestFollowerStartsOverWhenItsConsumerIsDeleted(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := sinkConn(t, b)
	p := producer(t, b)
	fill(t, p, "events.raw", 20, 1)
	f := follow(t, c, sinkSource, 0)
	read(t, f, 1, 20)
	if err := f.Commit(testkit.Context(t), 5); err != nil {
		t.Fatal(err)
	}
	if err := b.JS.DeleteConsumer(testkit.Context(t), "events_raw", "store"); err != nil {
		t.Fatal(err)
	}
	fill(t, p, "events.raw", 10, 1)
	read(t, f, 21, 10)
	// The new consumer stands at what was committed, not at what was read: the broker may drop what is before it.
	floor := ackFloor(t, b)
	if got := floor(); got != 5 {
		t.Errorf("the broker thinks that %d frames are done with, want 5", got)
	}
	if err := f.Commit(testkit.Context(t), 30); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { return floor() == 30 }, "the broker knows the position")
}

func TestFollowerReadsOnlyItsSubjects(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	for _, subjects := range [][]string{{"events.raw.eu"}, {"events.raw.eu", "events.raw.us.>"}} {
		src := wire.Source{Stream: "events.raw", Durable: "filter", Ordered: true, Subjects: subjects}
		c := dial(t, b, wire.Grant{Service: "filter", Consumes: []wire.Source{src}})
		p := producer(t, b)
		for _, subject := range []string{"events.raw.eu", "events.raw.asia", "events.raw.us.ny", "events.raw"} {
			fill(t, p, subject, 1, 1)
		}
		f := follow(t, c, src, 0)
		for _, want := range []string{"events.raw.eu", "events.raw.us.ny"}[:len(subjects)] {
			frame, err := f.Next(testkit.Context(t))
			if err != nil || frame.Subject != want {
				t.Fatalf("frame on %v, %v, want %s", frame, err, want)
			}
		}
		f.Close()
	}
}

func TestFollowerGoesOnBehindADamagedFrame(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := sinkConn(t, b)
	p := producer(t, b)
	if _, err := p.PublishFrame(testkit.Context(t), "events.raw", nil, []byte("HZF1 and nonsense")); err != nil {
		t.Fatal(err)
	}
	fill(t, p, "events.raw", 1, 1)
	f := follow(t, c, sinkSource, 0)
	frame, err := f.Next(testkit.Context(t))
	if fault.Code(err) != bus.CodeBadFrame || frame == nil || frame.Seq != 1 {
		t.Fatalf("the damaged frame gave %v, %v", frame, err)
	}
	if data, err := frame.Event(0); err != nil || string(data) != "HZF1 and nonsense" {
		t.Errorf("its bytes are %q, %v", data, err)
	}
	read(t, f, 2, 1)
}

// TestFrameThatInflatesBeyondItsHeaderIsRefused: the reader's memory is bounded by what the header says.
func TestFrameThatInflatesBeyondItsHeaderIsRefused(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, 64<<20), nil)
	p := producer(t, b)
	frame := wire.AppendFrame(nil, wire.CodecZstd, []uint32{9}, 10, bomb)
	if _, err := p.PublishFrame(testkit.Context(t), "events.raw", nil, frame); err != nil {
		t.Fatal(err)
	}
	f, err := follow(t, sinkConn(t, b), sinkSource, 0).Next(testkit.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Event(0); fault.Code(err) != bus.CodeBadFrame {
		t.Errorf("its event gives %v", err)
	}
	// A stage parks it and goes on.
	fill(t, p, "events.raw", 5, 5)
	start(t, newStage(t, dial(t, b, workerGrant()), rawTopic, copyItem, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", 5).exact(t)
}

func TestFollowerTellsAStreamThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := sinkConn(t, b)
	fill(t, producer(t, b), "events.raw", 3, 1)
	if _, err := c.Follow(testkit.Context(t), sinkSource, 4); fault.Code(err) != bus.CodeStreamReset {
		t.Errorf("error is %v, want %s", err, bus.CodeStreamReset)
	}
}

func TestFollowerGoesOnBehindAGap(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := sinkConn(t, b)
	fill(t, producer(t, b), "events.raw", 20, 1)
	stream, err := b.JS.Stream(testkit.Context(t), "events_raw")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(testkit.Context(t), jetstream.WithPurgeSequence(11)); err != nil {
		t.Fatal(err)
	}
	read(t, follow(t, c, sinkSource, 5), 11, 10)
}

func TestFollowerIsInOrderOverBrokerRestarts(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	c := sinkConn(t, b)
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{FrameBytes: 1})
	const n, kills = 1500, 3
	want := newLedger(n)
	var wg sync.WaitGroup
	published := make(chan int, n) // one slot an event
	wg.Go(func() {
		for i := range n {
			if _, err := p.Publish(testkit.Context(t), encoded(t, item{N: i})); err != nil {
				t.Errorf("publish %d: %v", i, err)
				return
			}
			published <- i
		}
	})
	f := follow(t, c, sinkSource, 0)
	wg.Go(func() {
		for i := range kills {
			for testkit.Wait(t, published) < (i+1)*n/(kills+1) {
			}
			b.Kill(t)
			b.Start(t)
		}
	})
	last := uint64(0)
	for len(want.seen) < n {
		frame, err := f.Next(testkit.Context(t))
		if err != nil {
			t.Fatalf("after frame %d: %v", last, err)
		}
		if frame.Seq != last+1 {
			t.Fatalf("frame %d came after %d", frame.Seq, last)
		}
		last = frame.Seq
		if last%50 == 0 {
			if err := f.Commit(testkit.Context(t), last); err != nil {
				t.Fatal(err)
			}
		}
		events, err := frame.Events()
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range events {
			var v item
			if err := json.Unmarshal(data, &v); err != nil {
				t.Fatal(err)
			}
			want.add(v.N)
		}
	}
	wg.Wait()
	want.exact(t)
}

func TestFollowerEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	f := follow(t, sinkConn(t, b), sinkSource, 0)
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := f.Next(ctx); !errors.Is(err, stopped) {
		t.Errorf("error is %v", err)
	}
}

// Two live readers share a consumer: a successor and one that does not know yet that it is done. What the broker gives
// to one the other must miss, even when nothing more is published.
func TestTwoFollowersOfOneConsumerBothSeeEverythingOnAQuietStream(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	p := producer(t, b)
	fill(t, p, "events.raw", 3, 1)
	first := follow(t, sinkConn(t, b), sinkSource, 0)
	read(t, first, 1, 3)
	if err := first.Commit(testkit.Context(t), 3); err != nil {
		t.Fatal(err)
	}
	floor := ackFloor(t, b)
	testkit.Eventually(t, func() bool { return floor() == 3 }, "the broker knows the position")

	// first reads on in the background before second comes.
	ctx := testkit.Context(t)
	seen := make(chan uint64, 4) // one a frame
	var wg sync.WaitGroup
	defer wg.Wait()
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	drain := func(f *bus.Follower, who uint64) {
		for {
			frame, err := f.Next(reading)
			if err != nil {
				return
			}
			seen <- who*100 + frame.Seq
		}
	}
	wg.Go(func() { drain(first, 1) })
	second := follow(t, sinkConn(t, b), sinkSource, 3)
	wg.Go(func() { drain(second, 2) })
	fill(t, p, "events.raw", 1, 1)
	got := []uint64{testkit.Wait(t, seen), testkit.Wait(t, seen)}
	slices.Sort(got)
	if !slices.Equal(got, []uint64{104, 204}) {
		t.Errorf("readers and frames %v, want 104 and 204", got)
	}
}
