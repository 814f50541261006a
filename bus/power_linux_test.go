package bus_test

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// powerCuts is how often TestPowerCuts cuts the power; HOZO_POWER_CUTS=50 is the long form.
func powerCuts(t *testing.T) int {
	t.Helper()
	text := os.Getenv("HOZO_POWER_CUTS")
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HOZO_POWER_CUTS is %q, not a number of cuts", text)
	}
	return n
}

// TestPowerCuts cuts the power of a broker at work. What was acknowledged on a stream of durability power must be there,
// once, in that stream, in the one that a stage makes of it, and in the hands of a follower that remembers where it was.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	cuts := powerCuts(t)
	disk := testkit.NewPowerDisk(t)
	b := testkit.BrokerProcessIn(t, disk.Dir)
	for _, name := range []string{"orders", "invoices", "clicks"} {
		b.Declare(t, broker.StreamSpec{Name: name, Keep: time.Hour, MaxBytes: 1 << 30, Dedupe: time.Hour})
	}

	source := wire.Source{Stream: "orders", Power: true}
	power := func(stream string) wire.Route {
		return wire.Route{Subject: stream, Stream: stream, Power: true, Frames: true, Compression: "none"}
	}
	writer := dial(t, b, wire.Grant{Service: "writer", Publish: []wire.Route{power("orders"), {Subject: "clicks", Stream: "clicks", Frames: true, Compression: "none"}}})
	billing := dial(t, b, wire.Grant{Service: "billing", Consumes: []wire.Source{source}, Publish: []wire.Route{power("invoices")}})
	stage, err := bus.NewStage(billing, bus.NewTopic[item]("orders"), func(_ context.Context, e bus.Event[item], out *bus.Out) error {
		return out.Publish("invoices", e.Data)
	}, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	start(t, stage)
	archive := dial(t, b, wire.Grant{Service: "archive", Consumes: []wire.Source{{Stream: "orders", Power: true, Ordered: true}}})
	seen := watch(t, archive)

	orders := produce(t, writer, "orders", 4)
	clicks := produce(t, writer, "clicks", 2)
	var lostClicks int
	for cut := range cuts {
		orders.await(t, 40+cut%7*20)
		clicks.await(t, 20)
		b.Kill(t)
		at := time.Now()
		disk.Cut(t, uint64(cut))
		b.StartAnew(t)
		lostClicks += clicks.check(t, b, at)
	}
	orders.stop()
	clicks.stop()
	settled(t, b, "orders", "billing")
	orders.exactly(t, b, "orders")
	orders.exactly(t, b, "invoices")
	seen.await(t, orders)
	if lostClicks == 0 {
		t.Errorf("%d cuts took nothing of a stream that promises less: the disk forgets nothing", cuts)
	}
	t.Logf("%d cuts: %d events acknowledged with durability power, none lost; of %d with durability process %d lost", cuts, orders.total(), clicks.total(), lostClicks)
}

// TestPublishersWaitForASlowDisk offers events far faster than the disk takes them. The publisher keeps no more than its window
// and has the others wait, and what it has acknowledged outlasts a loss of power.
func TestPublishersWaitForASlowDisk(t *testing.T) {
	t.Parallel()
	disk := testkit.NewPowerDisk(t)
	b := testkit.BrokerProcessIn(t, disk.Dir)
	b.Declare(t, broker.StreamSpec{Name: "orders", Keep: time.Hour, MaxBytes: 1 << 30, Dedupe: time.Hour})
	writer := dial(t, b, wire.Grant{Service: "writer", Publish: []wire.Route{{Subject: "orders", Stream: "orders", Power: true, Frames: true, Compression: "none"}}})
	publisher, err := writer.NewPublisher("orders", bus.PublisherConfig{FrameBytes: 256 << 10, WindowBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	const events, size, rate = 300, 32 << 10, 4 << 20 // two seconds of the disk
	disk.Limit(rate)
	began := time.Now()
	text := strings.Repeat("x", size)
	var wg sync.WaitGroup
	for n := range events {
		wg.Go(func() {
			if _, err := publisher.Publish(context.WithoutCancel(t.Context()), encoded(t, item{N: n, Text: text})); err != nil {
				t.Errorf("publish %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	if took, least := time.Since(began), time.Second*(events*size/2)/rate; took < least {
		t.Errorf("%d events took %v: the disk was not slow", events, took)
	}
	disk.Limit(0)
	b.Kill(t)
	disk.Cut(t, 1)
	b.StartAnew(t)
	times := map[int]int{}
	for _, e := range stored(t, b, "orders") {
		var v item
		if err := json.Unmarshal(e.data, &v); err != nil {
			t.Fatalf("%s: %v", e.id, err)
		}
		times[v.N]++
	}
	for n := range events {
		if times[n] != 1 {
			t.Errorf("event %d is stored %d times", n, times[n])
		}
	}
}

// exactly fails t unless a stream holds what was acknowledged once each, and names those of the others. What got no answer in
// time may be there or not, but not twice.
func (p *powerProducer) exactly(t *testing.T, b *testkit.TestBroker, stream string) {
	t.Helper()
	where := map[int][]string{}
	for _, e := range stored(t, b, stream) {
		var v item
		if err := json.Unmarshal(e.data, &v); err != nil {
			t.Fatalf("%s: %v", e.id, err)
		}
		where[v.N] = append(where[v.N], e.id.String()+" as "+e.msg.Headers().Get(wire.HeaderMsgID))
	}
	for n := range int(p.next.Load()) {
		if len(where[n]) > 1 || len(where[n]) == 0 && !p.acked[n].IsZero() {
			t.Errorf("stream %s holds item %d %d times: %q", stream, n, len(where[n]), where[n])
		}
	}
}

// powerProducer publishes numbered items and is the outside ledger of what was acknowledged.
type powerProducer struct {
	stream string
	next   atomic.Int64
	stop   func()
	more   chan struct{} // capacity 1: something was acknowledged

	mu    sync.Mutex
	acked map[int]time.Time
	gone  map[int]bool // known to be lost
}

func produce(t *testing.T, c *bus.Conn, stream string, workers int) *powerProducer {
	t.Helper()
	p := &powerProducer{stream: stream, more: make(chan struct{}, 1), acked: map[int]time.Time{}, gone: map[int]bool{}}
	publisher, err := c.NewPublisher(stream, bus.PublisherConfig{Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(p.next.Add(1)) - 1
				// What was taken is seen through: its number must not be missing in the end.
				_, err := publisher.Publish(context.WithoutCancel(ctx), encoded(t, item{N: n, Text: stream}))
				if fault.Code(err) == bus.CodeUnavailable {
					continue // the broker of a busy machine was away for longer than a publisher tries: nobody knows
				}
				if err != nil {
					t.Errorf("publish %s %d: %v", stream, n, err)
					return
				}
				p.mu.Lock()
				p.acked[n] = time.Now()
				p.mu.Unlock()
				select {
				case p.more <- struct{}{}:
				default:
				}
			}
		})
	}
	p.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(p.stop)
	return p
}

func (p *powerProducer) total() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.acked) }

// await waits until n more items are acknowledged.
func (p *powerProducer) await(t *testing.T, n int) {
	t.Helper()
	for goal := p.total() + n; p.total() < goal; {
		testkit.Wait(t, p.more)
	}
}

// check counts what was lost at the cut and fails t when any of it had been acknowledged longer before than promised.
func (p *powerProducer) check(t *testing.T, b *testkit.TestBroker, cut time.Time) (lost int) {
	t.Helper()
	p.mu.Lock()
	var before []int
	for n, at := range p.acked {
		if at.Before(cut) && !p.gone[n] {
			before = append(before, n)
		}
	}
	p.mu.Unlock()
	have := map[int]bool{}
	for _, e := range stored(t, b, p.stream) {
		var v item
		if err := json.Unmarshal(e.data, &v); err != nil {
			t.Fatal(err)
		}
		have[v.N] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range before {
		if have[n] {
			continue
		}
		p.gone[n] = true
		lost++
		if age := cut.Sub(p.acked[n]); age > wire.ProcessWindow {
			t.Errorf("%s %d was acknowledged %v before the cut and is lost: more than %v", p.stream, n, age, wire.ProcessWindow)
		}
	}
	return lost
}

// powerReader is what a follower has seen.
type powerReader struct {
	mu   sync.Mutex
	seen map[int]int
	more chan struct{}
}

// watch reads orders from the first to the last and keeps its position in memory: outside the disk.
func watch(t *testing.T, c *bus.Conn) *powerReader {
	t.Helper()
	s := &powerReader{seen: map[int]int{}, more: make(chan struct{}, 1)}
	src := c.Grant().Consumes[0]
	follower, err := c.Follow(testkit.Context(t), src, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer follower.Close()
		for {
			f, err := follower.Next(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("follow: %v", err)
				return
			}
			events, err := f.Events()
			if err != nil {
				t.Errorf("events: %v", err)
				return
			}
			s.mu.Lock()
			for _, data := range events {
				var v item
				if err := json.Unmarshal(data, &v); err != nil {
					t.Error(err)
				}
				s.seen[v.N]++
			}
			s.mu.Unlock()
			_ = follower.Commit(ctx, f.Seq)
			select {
			case s.more <- struct{}{}:
			default:
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// await waits until all that was acknowledged was seen and fails t when something was seen twice.
func (s *powerReader) await(t *testing.T, p *powerProducer) {
	t.Helper()
	all := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for n := range p.acked {
			if s.seen[n] == 0 {
				return false
			}
		}
		return true
	}
	for !all() {
		testkit.Wait(t, s.more)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, times := range s.seen {
		if times != 1 {
			t.Errorf("a follower saw item %d %d times", n, times)
		}
	}
}
