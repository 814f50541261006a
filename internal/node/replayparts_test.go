package node

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

func TestATapHearsWhereStreamsWithAKeyStore(t *testing.T) {
	t.Parallel()
	m := &manifest.Manifest{Streams: []manifest.Stream{{Name: "raw"}, {Name: "shop.orders", Partitions: 4}}}
	for subject, want := range map[string][]string{
		"raw":              {"raw", "raw.>"},
		"raw.eu":           {"raw.eu", "raw.eu.>"},
		"shop.orders":      {"shop.orders", "shop.orders.>"},
		"shop.orders.eu":   {"shop.orders.eu", "shop.orders.eu.>", "shop.orders.@.*.eu", "shop.orders.@.*.eu.>"},
		"shop.orders.eu.>": {"shop.orders.eu.>", "shop.orders.@.*.eu.>"},
		"*.orders.eu.>":    {"*.orders.eu.>", "shop.orders.@.*.eu.>"},
		"shop":             {"shop", "shop.>"},
		">":                {">"},
	} {
		if diff := cmp.Diff(want, storedOn(m, subject)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", subject, diff)
		}
	}
}

func TestATapOfWhatIsNotDeclaredIsRefused(t *testing.T) {
	t.Parallel()
	m := &manifest.Manifest{
		Live: []string{"prices.>"}, Streams: []manifest.Stream{{Name: "shop.orders"}},
		Services: []manifest.Service{{Serves: []string{"quote"}}}, Clients: []manifest.Client{{Calls: []string{"page.look"}}},
	}
	for subject, want := range map[string]bool{
		"shop.orders": true, "shop.orders.eu.>": true, "shop.*": true, "shop": true, ">": true, "*.orders": true,
		"prices": true, "prices.eu": true, "quote": true, "page.look": true, "hozo.dlq": true, "$JS.EVENT.>": true,
		"shop.order": false, "price": false, "quotes": false, "page.look.more": false, "orders": false,
	} {
		if got := flows(m, subject); got != want {
			t.Errorf("%s flows: %v, want %v", subject, got, want)
		}
	}
}

func TestAFrameIsCutAsItsTargetStoresEvents(t *testing.T) {
	t.Parallel()
	type event struct{ K, N int }
	builder := bus.NewBuilder(wire.CodecZstd)
	for i := range 40 {
		data, err := json.Marshal(event{i % 7, i})
		if err != nil {
			t.Fatal(err)
		}
		builder.Add(data)
	}
	framed := builder.Frame()
	for name, into := range map[string]manifest.Stream{
		"as it is": {Name: "copy", Frames: true}, "by key": {Name: "copy", Frames: true, Partitions: 3, Key: "K"}, "bare": {Name: "copy"},
	} {
		f, err := bus.OpenData("raw", "raw.eu", nil, framed)
		if err != nil {
			t.Fatal(err)
		}
		to := target{subject: "copy.eu", into: into}
		parts, err := to.parts(f, framed)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		homes, ids := map[int]string{}, map[wire.EventID]bool{}
		for _, one := range parts {
			if ids[one.first] {
				t.Errorf("%s: two messages are called %s", name, one.first)
			}
			ids[one.first] = true
			g, err := bus.OpenData("copy", one.subject, nil, one.data)
			if err != nil {
				t.Fatal(err)
			}
			if g.Framed() != into.Frames {
				t.Errorf("%s: a message has a frame: %v", name, g.Framed())
			}
			events, err := g.Events()
			if err != nil {
				t.Fatal(err)
			}
			last := map[int]int{}
			for _, data := range events {
				var e event
				if err := json.Unmarshal(data, &e); err != nil {
					t.Fatal(err)
				}
				if have, ok := homes[e.K]; into.Partitions > 0 && ok && have != one.subject {
					t.Errorf("%s: key %d is on %s and %s", name, e.K, have, one.subject)
				}
				if have, ok := last[e.K]; ok && have > e.N {
					t.Errorf("%s: event %d comes behind %d", name, e.N, have)
				}
				homes[e.K], last[e.K] = one.subject, e.N
				got = append(got, e.N)
			}
			if subject, _, _ := wire.SplitSubject("copy", one.subject); subject != "copy.eu" {
				t.Errorf("%s: a part goes to %s", name, one.subject)
			}
		}
		slices.Sort(got)
		if len(got) != 40 || got[0] != 0 || got[39] != 39 || len(slices.Compact(got)) != 40 {
			t.Errorf("%s: the events are %v", name, got)
		}
	}
}
