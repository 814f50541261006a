package watermill_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/hozo-dev/hozo/bench/messaging/watermill"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// features are what holds, with the reason where it is not plain.
var features = tests.Features{
	ConsumerGroups: true,
	Persistent:     true,
	// A Stage with one worker takes frames in the order of the stream, and one subscriber has them all. Several share
	// them out.
	GuaranteedOrder:                     true,
	GuaranteedOrderWithSingleSubscriber: true,
	// A frame is acknowledged as one: what a subscriber had of it when it was closed comes again.
	ExactlyOnceDelivery: false,
	// What a group has consumed does not come again to its next subscriber. A new group sees everything: see
	// TestNewGroupReceivesOldMessages.
	NewSubscriberReceivesOldMessages: false,
}

func TestUniversalSuite(t *testing.T) {
	p := newPlatform(t)
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) { return p.pubSub(t, "group") }, p.pubSub)
}

// This is the suite's TestReconnect, whose own check reads a list that another of its goroutines still adds to: it now and
// then finds one message more than were sent.
func TestEveryMessageComesAlthoughTheBrokerIsKilled(t *testing.T) {
	p := newPlatform(t)
	pub, sub := p.pubSub(t, "group")
	messages, err := sub.Subscribe(t.Context(), "topic")
	if err != nil {
		t.Fatal(err)
	}
	const publishers, each = 20, 100
	var publishing sync.WaitGroup
	killing := make(chan struct{})
	for i := range publishers {
		publishing.Go(func() {
			for j := range each {
				if i == 0 && (j == each/3 || j == each/2) {
					killing <- struct{}{}
				}
				m := message.NewMessage(fmt.Sprintf("%d-%d", i, j), []byte("x"))
				for pub.Publish("topic", m) != nil && t.Context().Err() == nil { // who does not know asks again
				}
			}
		})
	}
	for range 2 {
		testkit.Wait(t, killing)
		p.broker.Kill(t)
		p.broker.Start(t)
	}
	seen := map[string]bool{}
	for len(seen) < publishers*each {
		m := testkit.Wait(t, messages)
		if m == nil {
			t.Fatalf("the subscription ended after %d messages", len(seen))
		}
		seen[m.UUID] = true
		m.Ack()
	}
	publishing.Wait()
}

func TestNewGroupReceivesOldMessages(t *testing.T) {
	p := newPlatform(t)
	f := features
	f.NewSubscriberReceivesOldMessages = true
	var groups int
	tests.TestNewSubscriberReceivesOldMessages(t, tests.TestContext{TestID: tests.NewTestID(), Features: f},
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			groups++
			return p.pubSub(t, fmt.Sprintf("group%d", groups))
		})
}

// platform stands in for a node: it lets services in and makes their consumers, on a broker in a process of its own.
type platform struct {
	broker *testkit.TestBroker
	t      *testing.T // of the whole suite: grants outlive a single test
}

func newPlatform(t *testing.T) *platform {
	return &platform{testkit.BrokerProcess(t), t}
}

func (p *platform) join(ctx context.Context, g wire.Grant) (*bus.Conn, error) {
	return bus.Connect(ctx, bus.Config{URL: p.broker.URL, Grant: p.broker.Grant(p.t, g)})
}

func (p *platform) pubSub(t *testing.T, group string) (message.Publisher, message.Subscriber) {
	conn, err := p.join(t.Context(), wire.Grant{
		Service: "publisher", Publish: []wire.Route{{Subject: "wm.>", Stream: "wm"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pub := watermill.NewPublisher(conn)
	sub := watermill.NewSubscriber(func(ctx context.Context, topic string) (*bus.Conn, error) {
		return p.join(ctx, wire.Grant{
			Service: group, Consumes: []wire.Source{{Stream: "wm", Subjects: []string{"wm." + topic}, Durable: group + "-" + topic}},
		})
	})
	t.Cleanup(func() { // where the suite itself forgets
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
		if err := pub.Close(); err != nil {
			t.Error(err)
		}
	})
	return pub, sub
}
