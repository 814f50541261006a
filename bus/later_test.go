package bus_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// An event that is put aside comes back under its own name, not before its time, though the broker is killed meanwhile;
// its neighbours do not wait for it.
func TestAnEventPutAsideComesBackAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	c := dial(t, b, wire.Grant{Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{route("raw", "raw"), route("out", "out")}})
	const n, odd = 20, 7
	const aside = 3 * time.Second
	fill(t, c, "raw", n, n)
	var first atomic.Pointer[time.Time]
	var name atomic.Pointer[wire.EventID]
	back := make(chan bus.Event[item], 1)
	out := bus.NewTopic[item]("out")
	s, err := bus.NewStage(c, bus.NewTopic[item]("raw"), func(_ context.Context, e bus.Event[item], o *bus.Out) error {
		if e.Value.N == odd {
			if e.Returns == 0 {
				now := time.Now()
				first.CompareAndSwap(nil, &now) // the killed broker may forget that the frame was acknowledged
				name.Store(&e.ID)
				if err := out.Send(o, e.Value); err != nil { // taken back
					return err
				}
				return bus.RetryLater(aside)
			}
			e.Data = nil
			select {
			case back <- e:
			default:
			}
		}
		return out.Send(o, e.Value)
	}, bus.StageConfig{Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s)
	settled(t, b, "raw", "svc") // it is acknowledged, and nothing waits
	select {
	case e := <-back:
		t.Fatalf("%s came back before its neighbours were done", e.ID)
	default:
	}
	b.Kill(t)
	b.Start(t)
	e := <-back
	if waited := time.Since(*first.Load()); waited < aside {
		t.Errorf("came back after %v, not %v", waited, aside)
	}
	if e.Returns != 1 || e.ID != *name.Load() || e.Subject != "raw" || e.Attempt != 1 {
		t.Errorf("came back as %+v, was %s", e, *name.Load())
	}
	settled(t, b, wire.RetryStream, "svc")
	items(t, b, "out", n).exact(t)
}

// The broker gives a frame away when it hears nothing of it for 5 s. A handler may take longer without knowing.
func TestALongHandlerKeepsItsFrame(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	grant := wire.Grant{Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{route("raw", "raw")}}
	var calls atomic.Int64
	done := make(chan struct{})
	for range 2 { // whoever does not have it would get it
		c := dial(t, b, grant)
		s, err := bus.NewStage(c, bus.NewTopic[item]("raw"), func(ctx context.Context, _ bus.Event[item], _ *bus.Out) error {
			calls.Add(1)
			defer close(done) // twice would panic
			long := time.NewTimer(7 * time.Second)
			defer long.Stop()
			select {
			case <-long.C:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}, bus.StageConfig{})
		if err != nil {
			t.Fatal(err)
		}
		start(t, s)
		if calls.Load() == 0 {
			fill(t, c, "raw", 1, 1)
		}
		grant.Publish = nil
	}
	testkit.Wait(t, done)
	settled(t, b, "raw", "svc")
	if calls.Load() != 1 {
		t.Errorf("the handler was called %d times", calls.Load())
	}
}

// What a stop interrupts goes to another instance as it was: with a single attempt allowed it would be parked otherwise.
func TestADrainSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, wire.Grant{Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{route("raw", "raw")}})
	fill(t, c, "raw", 3, 1)
	entered := make(chan struct{}, 3)
	stage := func(fn bus.HandlerFunc[item]) *bus.Stage {
		s, err := bus.NewStage(c, bus.NewTopic[item]("raw"), fn, bus.StageConfig{Attempts: 1, Workers: 3, Drain: quick})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	stop := start(t, stage(func(ctx context.Context, _ bus.Event[item], _ *bus.Out) error {
		entered <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	}))
	for range 3 {
		<-entered
	}
	stop()
	seen := newLedger(3)
	start(t, stage(func(_ context.Context, e bus.Event[item], _ *bus.Out) error {
		if e.Attempt != 1 {
			t.Errorf("attempt %d", e.Attempt)
		}
		seen.add(e.Value.N)
		return nil
	}))
	testkit.Wait(t, seen.full)
	settled(t, b, "raw", "svc")
	seen.exact(t)
	if parked := c.Counters().Parked.Load(); parked != 0 {
		t.Errorf("%d events are parked", parked)
	}
}
