package bus_test

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// dialFile connects with a grant that is read again from a file.
func dialFile(t *testing.T, b *testkit.TestBroker, g wire.Grant) (*bus.Conn, wire.Grant, string) {
	t.Helper()
	g = b.Grant(t, g)
	file := filepath.Join(t.TempDir(), "grant.json")
	testkit.WriteGrant(t, g, file)
	c, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: g, File: file, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c, g, file
}

func TestRotationUnderLoadDropsNothing(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	topic := bus.NewTopic[item]("orders")
	out, outGrant, outFile := dialFile(t, b, wire.Grant{Service: "out", Publish: []wire.Route{{Subject: "orders", Stream: "orders"}}, Calls: []string{"math.double"}})
	in, inGrant, inFile := dialFile(t, b, wire.Grant{Service: "in", Consumes: []wire.Source{{Stream: "orders"}}, Serves: []string{"math.double"}})
	var got atomic.Int64
	stage, err := bus.NewStage(in, topic, func(context.Context, bus.Event[item], *bus.Out) error {
		got.Add(1)
		return nil
	}, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	start(t, stage)
	start(t, double.Serve(in, func(_ context.Context, i item) (item, error) { return item{N: 2 * i.N}, nil }, bus.ServeConfig{}))

	ctx, stop := context.WithCancel(testkit.Context(t))
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(sent.Add(1)) - 1
				if _, err := topic.Publish(testkit.Context(t), out, item{N: n}); err != nil {
					t.Errorf("publish %d: %v", n, err)
				}
				if twice, err := double.Ask(testkit.Context(t), out, item{N: n}); err != nil || twice.N != 2*n {
					t.Errorf("ask %d: %v, %v", n, twice, err)
				}
			}
		})
	}
	// Each rotation comes when the one before has been refused already, with calls and events on their way.
	for range 5 {
		before := sent.Load()
		stolen := outGrant
		outGrant = b.Rotate(t, outGrant, outFile, 1500*time.Millisecond)
		inGrant = b.Rotate(t, inGrant, inFile, 1500*time.Millisecond)
		testkit.Eventually(t, func() bool { return !opens(b, stolen) && sent.Load() > before+50 }, "the old password is refused and calls went on")
		if !opens(b, outGrant) || !opens(b, inGrant) {
			t.Error("a new password is refused")
		}
	}
	stop()
	wg.Wait()
	testkit.Eventually(t, func() bool { return got.Load() >= sent.Load() }, "everything arrives")
	for _, c := range []*bus.Conn{in, out} {
		if n := c.NATS().Stats().Reconnects; n != 0 {
			t.Errorf("%s connected anew %d times: a renewal was not taken", c.Grant().Service, n)
		}
	}
}

// opens reports whether a credential makes a connection.
func opens(b *testkit.TestBroker, g wire.Grant) bool {
	nc, err := nats.Connect(b.URL, nats.UserInfo(g.User, g.Password), nats.NoReconnect(), nats.Timeout(testkit.Patience))
	if err != nil {
		return false
	}
	nc.Close()
	return true
}

func TestStolenCredentialIsUselessAfterItsGrace(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	owner, g, file := dialFile(t, b, wire.Grant{Service: "shop", Publish: []wire.Route{{Subject: "orders", Stream: "orders"}}})
	thrown := make(chan struct{})
	thief, err := nats.Connect(b.URL, nats.UserInfo(g.User, g.Password), nats.NoReconnect(), nats.CustomInboxPrefix(g.Inbox),
		nats.ClosedHandler(func(*nats.Conn) { close(thrown) }))
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	id, err := thief.GetClientID()
	if err != nil {
		t.Fatal(err)
	}
	b.Rotate(t, g, file, time.Second)
	// It knows the old password only, so it cannot renew its connection.
	answer, err := thief.Request(wire.RenewSubject+"."+g.User, encoded(t, wire.Renewal{Client: id, Password: g.Password}), testkit.Patience)
	if err == nil && answer.Header.Get(wire.HeaderError) == "" {
		t.Error("the thief's connection was renewed with the old password")
	}
	testkit.Wait(t, thrown)
	if opens(b, g) {
		t.Error("the stolen password still opens a connection")
	}
	if _, err := bus.NewTopic[item]("orders").Publish(testkit.Context(t), owner, item{}); err != nil {
		t.Errorf("the owner cannot go on: %v", err)
	}
}

func TestOwnerWhoWasNotToldConnectsAnewWithTheNewPassword(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	owner, g, file := dialFile(t, b, wire.Grant{Service: "shop", Publish: []wire.Route{{Subject: "orders", Stream: "orders"}}})
	b.Replace(t, g, file, time.Millisecond)
	testkit.Eventually(t, func() bool { return owner.NATS().Stats().Reconnects == 1 && owner.Connected() }, "it is connected again")
	if _, err := bus.NewTopic[item]("orders").Publish(testkit.Context(t), owner, item{}); err != nil {
		t.Errorf("the owner cannot go on: %v", err)
	}
}

func TestWhatTheBrokerDeniesFailsAtOnceWithAReason(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := b.Grant(t, wire.Grant{Service: "shop"})
	b.Declare(t, broker.StreamSpec{Name: "orders", MaxBytes: 1 << 20})
	// The process believes that it may do more than it may.
	g.Publish = []wire.Route{{Subject: "orders", Stream: "orders", Compression: "none", Frames: true}}
	g.Calls, g.Declared = []string{"price.quote"}, "hozo.yaml:7"
	c, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: g, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(testkit.Context(t)) }() // nothing is under way
	_, err = bus.NewTopic[item]("orders").Publish(testkit.Context(t), c, item{})
	if f, ok := fault.As(err); !ok || f.Code != bus.CodeDenied || f.Where != "orders" || f.Fix == "" {
		t.Errorf("publish: %v", err)
	}
	_, err = bus.NewCall[item, item]("price.quote").Ask(testkit.Context(t), c, item{})
	if f, ok := fault.As(err); !ok || f.Code != bus.CodeDenied || f.Where != "price.quote" {
		t.Errorf("ask: %v", err)
	}
	// What its grant does not name does not even get to the broker, and the fault gives the line.
	_, err = bus.NewTopic[item]("refunds").Publish(testkit.Context(t), c, item{})
	want := "write publishes: [orders, refunds] under services.shop (hozo.yaml:7), then hozo apply"
	if f, ok := fault.As(err); !ok || f.Code != bus.CodeNoRoute || f.Fix != want {
		t.Errorf("publish what is not declared: %v", err)
	}
}
