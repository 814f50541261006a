package bus_test

import (
	"context"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func dropNewest(stream string) wire.Route {
	return wire.Route{Subject: stream, Stream: stream, Full: wire.FullDropNewest, Frames: true, Compression: "none"}
}

func TestDropNewestCountsWhatItDropsExactly(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "prices", MaxBytes: 64 << 10})
	c := dial(t, b, wire.Grant{Publish: []wire.Route{dropNewest("prices")}})
	const all, perCall = 400, 3
	text := make([]byte, 200)
	for i := range text {
		text[i] = 'a'
	}
	p, err := c.NewPublisher("prices", bus.PublisherConfig{Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for n := range all {
		event := encoded(t, item{N: n, Text: string(text)})
		id, err := p.Publish(testkit.Context(t), event, event, event)
		if err != nil {
			t.Fatalf("a stream that drops the newest refuses event %d: %v", n, err)
		}
		if id.Seq > 0 {
			kept += perCall
		}
	}
	have, dropped := len(stored(t, b, "prices")), c.Counters().Dropping()["prices"]
	if have != kept || have+int(dropped) != all*perCall || dropped == 0 {
		t.Errorf("of %d events %d are stored (%d were told so) and %d counted as dropped", all*perCall, have, kept, dropped)
	}

	// A link of a chain is refused, not dropped: what comes after it would hang in the air.
	h := nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}
	c2 := dial(t, b, wire.Grant{Publish: []wire.Route{{Subject: "prices.>", Stream: "prices", Full: wire.FullDropNewest, Frames: true}}})
	builder := bus.NewBuilder(wire.CodecNone)
	builder.Add(encoded(t, item{Text: string(make([]byte, 4<<10))}))
	if ack, err := c2.PublishFrame(testkit.Context(t), "prices.in.a", h, builder.Frame()); err == nil {
		t.Errorf("a link of a chain that the stream has no room for is acknowledged: %+v", ack)
	}
}

func TestAStageGoesOnWhenItsOutputDropsTheNewest(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "alerts", MaxBytes: 16 << 10})
	c := dial(t, b, wire.Grant{
		Publish:  []wire.Route{route("orders", "orders"), dropNewest("alerts")},
		Consumes: []wire.Source{{Stream: "orders"}},
	})
	const all = 400
	fill(t, c, "orders", all, 10)
	stage, err := bus.NewStage(c, bus.NewTopic[item]("orders"), func(_ context.Context, _ bus.Event[item], out *bus.Out) error {
		return out.Publish("alerts", make([]byte, 100))
	}, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, stage)
	settled(t, b, "orders", "svc")
	stop()
	have, dropped := len(stored(t, b, "alerts")), c.Counters().Dropping()["alerts"]
	if have+int(dropped) != all || dropped == 0 {
		t.Errorf("of %d events %d are stored and %d counted as dropped", all, have, dropped)
	}
}
