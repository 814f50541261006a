package bus_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

var double = bus.NewCall[item, item]("math.double")

func asker(t testing.TB, b *testkit.TestBroker) *bus.Conn {
	return dial(t, b, wire.Grant{Service: "asker", Calls: []string{"math.double"}})
}

func server(t testing.TB, b *testkit.TestBroker) *bus.Conn {
	return dial(t, b, wire.Grant{Service: "math", Serves: []string{"math.double"}})
}

func TestCallIsAnsweredByOneOfTheServers(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	answered := newLedger(100)
	answer := func(_ context.Context, req item) (item, error) {
		answered.add(req.N)
		return item{N: 2 * req.N}, nil
	}
	start(t, double.Serve(server(t, b), answer, bus.ServeConfig{}))
	start(t, double.Serve(server(t, b), answer, bus.ServeConfig{}))
	c := asker(t, b)
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			got, err := double.Ask(testkit.Context(t), c, item{N: n})
			if err != nil || got.N != 2*n {
				t.Errorf("twice %d is %d, %v", n, got.N, err)
			}
		})
	}
	wg.Wait()
	answered.exact(t)
}

func TestCallWithNobodyThereFailsAtOnce(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	_, err := double.Ask(testkit.Context(t), asker(t, b), item{})
	if f, ok := fault.As(err); !ok || f.Code != bus.CodeNoResponder || f.Fix == "" {
		t.Errorf("error is %#v", err)
	}
}

func TestCallBringsTheServersFaultToTheAsker(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	start(t, double.Serve(server(t, b), func(ctx context.Context, req item) (item, error) {
		switch req.N {
		case 1:
			return item{}, &fault.Error{Code: "math/odd", What: "1 is odd", Fix: "ask for 2"}
		case 2:
			panic("at 2")
		case 3:
			<-ctx.Done() // longer than allowed
			return item{}, context.Cause(ctx)
		}
		return item{}, errors.New("just so")
	}, bus.ServeConfig{Workers: 1, Timeout: quick}))
	c := asker(t, b)
	for n, want := range map[int]string{0: "call/error", 1: "math/odd", 2: bus.CodePanic, 3: "call/error"} {
		_, err := double.Ask(testkit.Context(t), c, item{N: n})
		if fault.Code(err) != want {
			t.Errorf("%d: error is %v, want code %q", n, err, want)
		}
		if f, _ := fault.As(err); n == 1 && (f == nil || f.Fix != "ask for 2" || f.What != "1 is odd") {
			t.Errorf("the fault came as %#v", err)
		}
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	begun, release := make(chan struct{}), make(chan struct{})
	start(t, double.Serve(server(t, b), func(context.Context, item) (item, error) {
		close(begun)
		<-release
		return item{}, nil
	}, bus.ServeConfig{}))
	defer close(release)
	ctx, cancel := context.WithCancelCause(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { testkit.Wait(t, begun); cancel(errors.New("tired of waiting")) })
	_, err := double.Ask(ctx, asker(t, b), item{})
	wg.Wait()
	if fault.Code(err) != bus.CodeTimedOut {
		t.Errorf("error is %v", err)
	}
}

func TestServerAnswersWhatReachedItBeforeItStops(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const n = 20
	begun, release := make(chan struct{}, n), make(chan struct{}) // one slot a request
	stop := start(t, double.Serve(server(t, b), func(_ context.Context, req item) (item, error) {
		begun <- struct{}{}
		<-release
		return req, nil
	}, bus.ServeConfig{Workers: 1}))
	c := asker(t, b)
	var asked, stopped sync.WaitGroup
	results := make(chan error, n) // one a request
	for i := range n {
		asked.Go(func() {
			_, err := double.Ask(testkit.Context(t), c, item{N: i})
			results <- err
		})
	}
	testkit.Wait(t, begun)
	if err := c.NATS().FlushWithContext(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	stopped.Go(stop)
	close(release)
	asked.Wait()
	stopped.Wait()
	answered := 0
	for range n {
		switch err := <-results; fault.Code(err) {
		case "":
			answered++
		case bus.CodeNoResponder: // it came after the stop
		default:
			t.Errorf("a request got %v", err)
		}
	}
	if answered == 0 {
		t.Error("the request in hand was not answered")
	}
}

func TestCallsAndServersNeedTheirGrant(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, wire.Grant{Service: "stranger"})
	if _, err := double.Ask(testkit.Context(t), c, item{}); fault.Code(err) != bus.CodeNoCall {
		t.Errorf("asking: %v", err)
	}
	serve := func(_ context.Context, req item) (item, error) { return req, nil }
	if err := double.Serve(c, serve, bus.ServeConfig{}).Run(testkit.Context(t)); fault.Code(err) != bus.CodeNotServed {
		t.Errorf("serving: %v", err)
	}
}
