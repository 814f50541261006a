package bus_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestSentEventsAreStoredOnceFlushReturns(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	// A window of four small frames: Send has to wait for acknowledgements all the time.
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{FrameBytes: 1 << 10, WindowBytes: 4 << 10})
	start(t, p)
	const senders, each = 4, 2000
	var wg sync.WaitGroup
	for sender := range senders {
		wg.Go(func() {
			buf := make([]byte, 0, 64)
			for i := range each {
				buf = append(buf[:0], encoded(t, item{N: sender*each + i})...) // reused: Send has copied it
				if err := p.Send(testkit.Context(t), buf); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	// Callers who wait for their own event share the window with those who do not.
	wg.Go(func() {
		for i := range 50 {
			if _, err := p.Publish(testkit.Context(t), encoded(t, item{N: senders*each + i})); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if err := p.Flush(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	items(t, b, "events.raw", senders*each+50).exact(t)
}

func TestSentEventsOfOneCallerKeepTheirOrderWithinAFrame(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{Linger: time.Hour})
	for n := range 100 {
		if err := p.Send(testkit.Context(t), encoded(t, item{N: n})); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	last := map[uint64]string{}
	for _, e := range stored(t, b, "events.raw") {
		if e.id.Index > 0 && len(last[e.id.Seq]) == len(e.data) && last[e.id.Seq] >= string(e.data) {
			t.Errorf("%s is %s, behind %s", e.id, e.data, last[e.id.Seq])
		}
		last[e.id.Seq] = string(e.data)
	}
}

func TestSendTellsARefusalUntilFlushHasTold(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "events.raw", MaxBytes: 64 << 10})
	c := dial(t, b, wire.Grant{Publish: []wire.Route{{Subject: "events.raw", Stream: "events.raw", Compression: "none", Frames: true, Full: wire.FullFail}}})
	p := newPublisher(t, c, "events.raw", bus.PublisherConfig{FrameBytes: 16 << 10, WindowBytes: 64 << 10})
	var err error
	for n := 0; err == nil && n < 1000; n++ {
		err = p.Send(testkit.Context(t), make([]byte, 10<<10))
	}
	if fault.Code(err) != bus.CodeStreamFull {
		t.Fatalf("Send to a full stream gives %v, want %s", err, bus.CodeStreamFull)
	}
	if err := p.Send(testkit.Context(t), []byte("{}")); fault.Code(err) != bus.CodeStreamFull {
		t.Errorf("the next Send gives %v, want %s again", err, bus.CodeStreamFull)
	}
	if err := p.Flush(testkit.Context(t)); fault.Code(err) != bus.CodeStreamFull {
		t.Errorf("Flush gives %v, want %s", err, bus.CodeStreamFull)
	}
	stream, err := b.JS.Stream(testkit.Context(t), "events_raw")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	if err := p.Send(testkit.Context(t), []byte("{}")); err != nil {
		t.Errorf("the stream has room again, and still: %v", err)
	}
	if err := p.Flush(testkit.Context(t)); err != nil {
		t.Errorf("the stream has room again, and Flush says: %v", err)
	}
}

func TestSendRefusesWhatItCannotTake(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{})
	if err := p.Send(testkit.Context(t), make([]byte, 16<<20)); fault.Code(err) != bus.CodeTooLarge {
		t.Errorf("16 MiB: %v, want %s", err, bus.CodeTooLarge)
	}
	stop := start(t, p)
	if err := p.Send(testkit.Context(t), encoded(t, item{N: 0})); err != nil {
		t.Error(err)
	}
	stop()
	items(t, b, "events.raw", 1).exact(t) // the stop has stored it
	if err := p.Send(testkit.Context(t), []byte("{}")); fault.Code(err) != bus.CodeUnavailable {
		t.Errorf("after the stop: %v, want %s", err, bus.CodeUnavailable)
	}
}

func TestFlushEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{})
	b.Stop(t)
	if err := p.Send(testkit.Context(t), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testkit.Context(t))
	cancel()
	if err := p.Flush(ctx); fault.Code(err) != bus.CodeUnavailable {
		t.Errorf("Flush without a broker gives %v, want %s", err, bus.CodeUnavailable)
	}
	b.Start(t)
	if err := p.Flush(testkit.Context(t)); err != nil {
		t.Errorf("the broker is back, and Flush says: %v", err)
	}
	items(t, b, "events.raw", 1).exact(t)
}
