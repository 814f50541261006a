package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

var prices = bus.NewTopic[item]("prices")

// live connects a publisher and so many watching services.
func live(t *testing.T, b *testkit.TestBroker, watchers int) (*bus.Conn, []*bus.Conn) {
	t.Helper()
	pub := dial(t, b, wire.Grant{Service: "pub", Live: []string{"prices.>"}})
	var subs []*bus.Conn
	for range watchers {
		subs = append(subs, dial(t, b, wire.Grant{Service: "sub", Watches: []string{"prices.>"}}))
	}
	return pub, subs
}

// send publishes items from first to last and waits until the broker has them.
func send(t *testing.T, c *bus.Conn, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		id, err := prices.At("prices.jp").Publish(testkit.Context(t), c, item{N: n})
		if err != nil || id != (wire.EventID{}) {
			t.Fatalf("publish: id %v, error %v", id, err)
		}
	}
	if err := c.NATS().FlushWithContext(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
}

func TestEveryInstanceGetsEveryLiveEventInOrder(t *testing.T) {
	t.Parallel()
	const n = 5000
	pub, subs := live(t, testkit.Broker(t), 3)
	var all sync.WaitGroup
	for _, c := range subs {
		all.Add(1)
		next := 1
		start(t, prices.Watch(c, func(_ context.Context, e bus.Event[item]) error {
			if e.Value.N != next || e.Subject != "prices.jp" {
				return fmt.Errorf("got %d on %s, want %d", e.Value.N, e.Subject, next)
			}
			if next++; next == n+1 {
				all.Done()
			}
			return nil
		}, bus.WatchConfig{Full: bus.Block}))
	}
	send(t, pub, 1, n)
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { all.Wait(); close(done) })
	testkit.Wait(t, done)
	wait.Wait()
	for _, c := range subs {
		if failed := c.Counters().Failed.Load(); failed != 0 {
			t.Errorf("%d events were not as expected", failed)
		}
	}
}

// stuck is a watch whose handler stands still at its first event until it is released.
type stuck struct {
	entered, release chan struct{}
	once             sync.Once
	mu               sync.Mutex
	got              []int
	last             chan struct{} // closed at the event numbered until
	until            int
}

func newStuck(until int) *stuck {
	return &stuck{entered: make(chan struct{}), release: make(chan struct{}), last: make(chan struct{}), until: until}
}

func (s *stuck) handle(ctx context.Context, e bus.Event[item]) error {
	s.once.Do(func() { close(s.entered) })
	select {
	case <-s.release:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, e.Value.N)
	if e.Value.N == s.until {
		close(s.last)
	}
	return nil
}

func numbers(first, last int) []int {
	var all []int
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

func TestAFullWatchDoesWhatItsPolicySaysAndCountsIt(t *testing.T) {
	t.Parallel()
	const sent, buffer = 1000, 10
	for _, c := range []struct {
		policy  bus.Policy
		want    []int
		dropped uint64
	}{
		{bus.DropOldest, append([]int{1}, numbers(sent-buffer+1, sent)...), sent - 1 - buffer},
		{bus.DropNewest, append(numbers(1, buffer+1), sent+1), sent - 1 - buffer},
		{bus.Block, numbers(1, sent+1), 0},
	} {
		t.Run(c.policy.String(), func(t *testing.T) {
			t.Parallel()
			pub, subs := live(t, testkit.Broker(t), 1)
			until := sent
			if c.policy != bus.DropOldest {
				until = sent + 1
			}
			s := newStuck(until)
			w := prices.Watch(subs[0], s.handle, bus.WatchConfig{Buffer: buffer, Full: c.policy})
			stop := start(t, w)
			send(t, pub, 1, 1)
			testkit.Wait(t, s.entered)
			send(t, pub, 2, sent)
			testkit.Eventually(t, func() bool { return w.Dropped() == c.dropped }, "the drops are counted")
			close(s.release)
			if c.policy != bus.DropOldest {
				if c.policy == bus.DropNewest {
					testkit.Eventually(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.got) == buffer+1 }, "the buffer is empty")
				}
				send(t, pub, sent+1, sent+1)
			}
			testkit.Wait(t, s.last)
			stop()
			if !slices.Equal(s.got, c.want) {
				t.Errorf("handled %v, want %v", s.got, c.want)
			}
			if w.Dropped() != c.dropped {
				t.Errorf("%d dropped, want %d", w.Dropped(), c.dropped)
			}
			if in := subs[0].Counters().EventsIn.Load(); in+w.Dropped() != uint64(until) {
				t.Errorf("%d handled and %d dropped of %d", in, w.Dropped(), until)
			}
		})
	}
}

func TestAWatchThatMayNotMissAnythingFailsWhenItWould(t *testing.T) {
	t.Parallel()
	pub, subs := live(t, testkit.Broker(t), 1)
	s := newStuck(0)
	w := prices.Watch(subs[0], s.handle, bus.WatchConfig{Buffer: 2, Full: bus.Fail})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	ended := make(chan error, 1)
	var run sync.WaitGroup
	run.Go(func() { ended <- w.Run(ctx) })
	defer run.Wait()
	testkit.Wait(t, w.Ready())
	send(t, pub, 1, 1)
	testkit.Wait(t, s.entered)
	send(t, pub, 2, 4)
	close(s.release)
	if err := <-ended; fault.Code(err) != bus.CodeOverflow {
		t.Errorf("Run: %v", err)
	}
	if w.Dropped() == 0 {
		t.Error("nothing is counted")
	}
}

func TestAHandlerThatFailsOrPanicsDoesNotEndTheWatch(t *testing.T) {
	t.Parallel()
	pub, subs := live(t, testkit.Broker(t), 1)
	done := make(chan struct{})
	start(t, prices.Watch(subs[0], func(_ context.Context, e bus.Event[item]) error {
		switch e.Value.N {
		case 1:
			return errors.New("no")
		case 2:
			panic("never")
		}
		close(done)
		return nil
	}, bus.WatchConfig{}))
	send(t, pub, 1, 3)
	testkit.Wait(t, done)
	if failed := subs[0].Counters().Failed.Load(); failed != 2 {
		t.Errorf("%d failed, want 2", failed)
	}
}

func TestLiveEventsNeedTheirLineInTheManifest(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, wire.Grant{Live: []string{"prices.jp"}, Watches: []string{"prices.*"}})
	_, err := bus.NewTopic[item]("prices.us").Publish(testkit.Context(t), c, item{})
	if fault.Code(err) != bus.CodeNoRoute {
		t.Errorf("publish: %v", err)
	}
	nothing := func(context.Context, bus.Event[item]) error { return nil }
	err = bus.NewTopic[item]("news").Watch(c, nothing, bus.WatchConfig{}).Run(testkit.Context(t))
	if fault.Code(err) != bus.CodeNotWatched {
		t.Errorf("watch: %v", err)
	}
	// The broker refuses what the library would let pass.
	refused := b.Connect(t, b.Grant(t, wire.Grant{Service: "other"}))
	if _, err := refused.SubscribeSync("prices.jp"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(refused.Publish("prices.jp", nil), refused.FlushWithContext(testkit.Context(t)), refused.LastError()); err == nil {
		t.Error("a service without the lines may publish and watch")
	}
}

// What a stage sends live goes out once its frame is stored, and what a failing try sent does not.
func TestAStageSendsLiveEventsWhenItsFrameIsDone(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	stage := dial(t, b, wire.Grant{
		Service: "stage", Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{route("raw", "raw")}, Live: []string{"prices.jp"},
	})
	sub := dial(t, b, wire.Grant{Service: "sub", Watches: []string{"prices.jp"}})
	var got atomic.Int64
	done := make(chan struct{})
	start(t, prices.Watch(sub, func(_ context.Context, e bus.Event[item]) error {
		if got.Add(1); e.Value.N == 9 {
			close(done)
		}
		return nil
	}, bus.WatchConfig{}))
	fill(t, stage, "raw", 10, 10)
	s, err := bus.NewStage(stage, bus.NewTopic[item]("raw"), func(_ context.Context, e bus.Event[item], out *bus.Out) error {
		if err := prices.At("prices.jp").Send(out, e.Value); err != nil {
			return err
		}
		if e.Attempt == 1 {
			return errors.New("once more")
		}
		return nil
	}, bus.StageConfig{Backoff: quick})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s)
	testkit.Wait(t, done)
	if got.Load() != 10 {
		t.Errorf("%d live events, want 10", got.Load())
	}
}
