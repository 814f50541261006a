package bus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
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

// A program waits for room on a stream that blocks, and is told at once on one that fails.
func TestBlockWaitsForRoomAndFailDoesNot(t *testing.T) {
	t.Parallel()
	for _, frames := range []bool{true, false} {
		b := testkit.Broker(t)
		b.Declare(t, broker.StreamSpec{Name: "orders", MaxBytes: 64 << 10})
		to := func(full string) *bus.Publisher {
			r := wire.Route{Subject: "orders", Stream: "orders", Full: full, Frames: frames, Compression: "none"}
			p, err := dial(t, b, wire.Grant{Publish: []wire.Route{r}}).NewPublisher("orders", bus.PublisherConfig{})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		large := encoded(t, item{N: -1, Text: strings.Repeat("a", 10<<10)})
		fails := to(wire.FullFail)
		var err error
		for n := 0; err == nil && n < 20; n++ {
			_, err = fails.Publish(testkit.Context(t), large)
		}
		if fault.Code(err) != bus.CodeStreamFull {
			t.Fatalf("frames %v, policy fail: %v, want %s", frames, err, bus.CodeStreamFull)
		}
		// An empty policy is block. A caller who leaves early says nothing about the event: it is still to be stored.
		blocks := to("")
		ctx, cancel := context.WithTimeout(testkit.Context(t), 100*time.Millisecond)
		defer cancel()
		if _, err := blocks.Publish(ctx, encoded(t, item{N: 7, Text: string(large)})); fault.Code(err) != bus.CodeUnavailable {
			t.Errorf("frames %v, policy block, before there is room: %v, want the end of the wait", frames, err)
		}
		stream, err := b.JS.Stream(testkit.Context(t), "orders")
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(testkit.Context(t)); err != nil {
			t.Fatal(err)
		}
		if err := blocks.Flush(testkit.Context(t)); err != nil {
			t.Errorf("frames %v: flush with room again: %v", frames, err)
		}
		if got := stored(t, b, "orders"); len(got) != 1 || !strings.Contains(string(got[0].data), `"n":7`) {
			t.Errorf("frames %v: the stream holds %d events, want the one that waited", frames, len(got))
		}
	}
}

func TestDropNewestCountsSingleMessagesToo(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "prices", MaxBytes: 64 << 10})
	c := dial(t, b, wire.Grant{Publish: []wire.Route{{Subject: "prices", Stream: "prices", Full: wire.FullDropNewest, Compression: "none"}}})
	p, err := c.NewPublisher("prices", bus.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const all = 100
	for n := range all {
		if err := p.Send(testkit.Context(t), encoded(t, item{N: n, Text: strings.Repeat("a", 2<<10)})); err != nil {
			t.Fatalf("a stream that drops the newest refuses event %d: %v", n, err)
		}
	}
	if err := p.Flush(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	have, dropped := len(stored(t, b, "prices")), c.Counters().Dropping()["prices"]
	if have+int(dropped) != all || dropped == 0 || have == 0 {
		t.Errorf("of %d events %d are stored and %d counted as dropped", all, have, dropped)
	}
}

// The fences of an ordered service need room as well: it must neither wait for it nor store anything without them.
func TestAnOrderedStageGoesOnWhenItsOutputDropsTheNewest(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const keys, each = 20, 30
	for _, maxBytes := range []int64{16 << 10, 300} { // filled by the output; too small for the fences
		out := fmt.Sprintf("alerts-%d", maxBytes)
		b.Declare(t, broker.StreamSpec{Name: out, MaxBytes: maxBytes, Partitions: partitions, Key: "key"})
		g := orderedGrant()
		r := keyedRoute(out)
		r.Full, r.Frames, r.Compression = wire.FullDropNewest, true, "none"
		g.Service, g.Publish = "mover-"+out, []wire.Route{r}
		c := dial(t, b, g)
		if maxBytes == 16<<10 {
			play(t, mover(t, b), keys, each)
		}
		handled := newLedger(keys * each)
		stage, err := bus.NewStage(c, moves, func(_ context.Context, e bus.Event[move], to *bus.Out) error {
			var k int
			if _, err := fmt.Sscanf(e.Value.Key, "key-%d", &k); err != nil {
				return err
			}
			handled.add(k*each + e.Value.N)
			return to.Publish(out, encoded(t, move{e.Value.Key, e.Value.N}))
		}, bus.StageConfig{})
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, stage)
		testkit.Wait(t, handled.full)
		stop()
		handled.exact(t)
		have, dropped, sent := 0, c.Counters().Dropping(), c.Counters().Sending()[out]
		for _, e := range stored(t, b, out) {
			if !wire.IsFence(out, e.msg.Subject()) {
				have++
			}
		}
		if have+int(dropped[out]) != keys*each || dropped[out] == 0 || len(dropped) != 1 || int(sent) != have {
			t.Errorf("max_bytes %d: of %d events %d are stored, %d counted as stored and %v as dropped", maxBytes, keys*each, have, sent, dropped)
		}
	}
}
