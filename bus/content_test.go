package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func FuzzKeepWritesBackWhatItDoesNotKnow(f *testing.F) {
	f.Add([]byte(`{"n":1,"later":{"x":[1,2]},"TEXT":"a","\u0061":null,"later":2}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"n":"no number"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var k bus.Keep[item]
		if json.Unmarshal(data, &k) != nil {
			return
		}
		again, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		var before, after map[string]any
		if err := errors.Join(json.Unmarshal(data, &before), json.Unmarshal(again, &after)); err != nil {
			t.Fatalf("%s became %s: %v", data, again, err)
		}
		for name, value := range before {
			known := strings.EqualFold(name, "n") || strings.EqualFold(name, "text")
			a, _ := json.Marshal(value)
			b, _ := json.Marshal(after[name])
			if !known && string(a) != string(b) {
				t.Errorf("%s became %s: %s is %s", data, again, name, b)
			}
		}
	})
}

// An event of a newer program passes through an older stage and has all its fields afterwards.
func TestAStagePassesOnFieldsThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, wire.Grant{Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{route("raw", "raw"), route("out", "out")}})
	if _, err := bus.NewTopic[json.RawMessage]("raw").Publish(testkit.Context(t), c, json.RawMessage(`{"new":{"a":[1.50]},"n":4,"more":"x"}`)); err != nil {
		t.Fatal(err)
	}
	out := bus.NewTopic[bus.Keep[item]]("out")
	s, err := bus.NewStage(c, bus.NewTopic[bus.Keep[item]]("raw"), func(_ context.Context, e bus.Event[bus.Keep[item]], o *bus.Out) error {
		e.Value.Value.N++
		if string(e.Value.Unknown("more")) != `"x"` || e.Value.Unknown("n") != nil {
			t.Errorf("unknown fields are not as they should be: %+v", e.Value)
		}
		return out.Send(o, e.Value)
	}, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s)
	settled(t, b, "raw", "svc")
	all := stored(t, b, "out")
	if len(all) != 1 || string(all[0].data) != `{"n":5,"new":{"a":[1.50]},"more":"x"}` {
		t.Errorf("stored %v", all)
	}
}

// What goes out as a message of its own is a CloudEvent for whoever reads it without this package.
func TestBareMessagesAreCloudEvents(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	bare := func(subject string) wire.Route {
		return wire.Route{Subject: subject, Stream: subject, Compression: "none"}
	}
	c := dial(t, b, wire.Grant{
		Service: "shop", Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{bare("raw"), bare("out")},
		Live: []string{"prices.jp"}, Watches: []string{"prices.jp"}, Calls: []string{"ask"}, Serves: []string{"ask"},
	})
	seen := make(chan wire.CloudEvent, 3)
	start(t, prices.Watch(c, func(_ context.Context, e bus.Event[item]) error { seen <- e.CloudEvent(); return nil }, bus.WatchConfig{}))
	s, err := bus.NewStage(c, bus.NewTopic[item]("raw"), func(_ context.Context, e bus.Event[item], o *bus.Out) error {
		seen <- e.CloudEvent()
		if e.Value.N == 2 {
			return bus.Reject("shop/two", errors.New("no"))
		}
		return bus.NewTopic[item]("out").Send(o, e.Value)
	}, bus.StageConfig{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s)
	check := func(what string, ce wire.CloudEvent, eventType string) {
		t.Helper()
		if ce.ID == "" || ce.Source != "/test/shop" || ce.Type != eventType || ce.Time.IsZero() || ce.ContentType != "application/json" {
			t.Errorf("%s: %+v", what, ce)
		}
	}
	for n := 1; n <= 2; n++ {
		if _, err := bus.NewTopic[item]("raw").Publish(testkit.Context(t), c, item{N: n}); err != nil {
			t.Fatal(err)
		}
		check("stored from outside", <-seen, "raw")
	}
	settled(t, b, "raw", "shop")
	for _, stream := range []string{"out", wire.DeadStream} {
		all := stored(t, b, stream)
		if len(all) != 1 {
			t.Fatalf("%s holds %d events", stream, len(all))
		}
		ce, ok := wire.CloudEventOf(all[0].msg.Headers())
		if !ok {
			t.Fatalf("%s: no CloudEvent in %v", stream, all[0].msg.Headers())
		}
		check(stream, ce, map[string]string{"out": "out", wire.DeadStream: "raw"}[stream])
	}
	typed := bus.NewTopic[item]("prices.jp", bus.CloudEvents("test.price"))
	if _, err := typed.Publish(testkit.Context(t), c, item{}); err != nil {
		t.Fatal(err)
	}
	check("live", <-seen, "test.price")
	// Without the option a live event has no headers at all; its attributes come from its name.
	if _, err := prices.At("prices.jp").Publish(testkit.Context(t), c, item{}); err != nil {
		t.Fatal(err)
	}
	if ce := <-seen; ce.Type != "prices.jp" || ce.ContentType != "" {
		t.Errorf("live without headers: %+v", ce)
	}
}
