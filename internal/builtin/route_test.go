package builtin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

var conditions = []string{
	`type == "PushEvent"`,
	`payload.size > 3`,
	`payload.size > 3 and repo.name startsWith "a/"`,
	`payload.commits[0].author.name == "x"`,
	`any(payload.commits, .distinct)`,
	`len(tags) > 1 && "red" in tags`,
	`"type" in payload`,
	`payload["odd key"]?.x == 1`,
	`actor?.login matches "^a"`,
	`let p = payload; p.size == 4`,
	`payload == nil`,
	`$env["type"] == "PushEvent"`,
	`payload[type] == 1`,
	`count > 2`,
	`not public`,
	`(payload ?? {"size": 9}).size == 9`,
	`get(payload, "size") == 4`,
	`type in ["WatchEvent", "ForkEvent"] ? payload.action == "started" : false`,
	`{"a": payload.size}.a == 4`,
	`filter(tags, # == type)[0] == type`,
}

var samples = []string{
	`{"type":"PushEvent","payload":{"size":4,"commits":[{"author":{"name":"x"},"distinct":true}]},"repo":{"name":"a/b"}}`,
	`{"type":"WatchEvent","payload":{"action":"started"},"public":false,"actor":{"login":"abc"}}`,
	`{"type":"PushEvent","payload":"text","tags":["red","PushEvent"]}`,
	`{"type":null,"payload":null}`,
	`{"payload":{"odd key":{"x":1},"type":3},"tags":"red","count":3}`,
	`{"payload":[1,2],"type":"0"}`, `{"payload":{"k":1},"type":"k"}`,
	`{"type":"PushEvent","type":"WatchEvent","payload":{"size":1},"payload":{"size":4}}`,
	`{"a.b":1,"payload":{"size":4.5e3}}`,
	`{"typé":"x","t\u0079pe":"PushEvent"}`,
	`{"payload":{"commits":[]}}`,
	`[]`, `5`, `"type"`, `null`, ` {"type":"PushEvent"} `, `{}`,
}

// decide gives the subject of an event under one condition, with the fields that the condition reads or, when full, with
// the whole event.
func decide(t testing.TB, when string, event []byte, full bool) string {
	t.Helper()
	r, err := newRouter(manifest.RouteBy{Rules: []manifest.Rule{{When: when, Subject: "yes"}}, Default: "no"})
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if full {
		r.whole = true
	}
	subject, err := r.subject(event)
	if err != nil {
		return "rejected"
	}
	return subject
}

func TestFieldsOfAConditionGiveTheSameAsTheWholeEvent(t *testing.T) {
	t.Parallel()
	for _, when := range conditions {
		hits := 0
		for _, event := range samples {
			fast, full := decide(t, when, []byte(event), false), decide(t, when, []byte(event), true)
			if fast != full {
				t.Errorf("%s over %s: %s by fields, %s by the whole", when, event, fast, full)
			}
			if fast == "yes" {
				hits++
			}
		}
		if hits == 0 {
			t.Errorf("%s holds for no sample", when)
		}
	}
}

func FuzzFieldsOfAConditionGiveTheSameAsTheWholeEvent(f *testing.F) {
	for i := range conditions {
		for _, event := range samples {
			f.Add(i, event)
		}
	}
	type pair struct{ fast, full *router }
	routers := make([]pair, len(conditions))
	for i, when := range conditions {
		for _, r := range []**router{&routers[i].fast, &routers[i].full} {
			var err error
			if *r, err = newRouter(manifest.RouteBy{Rules: []manifest.Rule{{When: when, Subject: "yes"}}, Default: "no"}); err != nil {
				f.Fatal(err)
			}
		}
		routers[i].full.whole = true
	}
	f.Fuzz(func(t *testing.T, i int, event string) {
		i = int(uint(i) % uint(len(conditions)))
		fast, errFast := routers[i].fast.subject([]byte(event))
		full, errFull := routers[i].full.subject([]byte(event))
		if fast != full || (errFast == nil) != (errFull == nil) {
			t.Fatalf("%s over %q: %q (%v) by fields, %q (%v) by the whole", conditions[i], event, fast, errFast, full, errFull)
		}
		if (errFast == nil) != json.Valid([]byte(event)) {
			t.Fatalf("%q: %v", event, errFast)
		}
	})
}

func TestConditionsThatReadKnownFieldsAreNotDecodedWhole(t *testing.T) {
	t.Parallel()
	for when, want := range map[string]string{
		`type == "PushEvent"`:                             "type",
		`payload.size > 3 and repo.name == "x"`:           "payload.size repo.name",
		`payload.size > 3 and len(payload) > 1`:           "payload",
		`payload["odd key"].x == a?.b`:                    "a.b payload.odd key.x",
		`any(payload.commits, .distinct and type == "x")`: "payload.commits type",
		`$env["type"] == "x"`:                             "everything",
	} {
		f, ok, err := fieldsOf(when)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(leaves("", f), " ")
		if !ok {
			got = "everything"
		}
		if got != want {
			t.Errorf("%s reads %q, want %q", when, got, want)
		}
	}
}

func leaves(prefix string, f fields) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if f[name] == nil {
			all = append(all, prefix+name)
			continue
		}
		all = append(all, leaves(prefix+name+".", f[name])...)
	}
	return all
}

func TestBadConditionsAreFaultsAllAtOnce(t *testing.T) {
	t.Parallel()
	_, err := newRouter(manifest.RouteBy{Rules: []manifest.Rule{{When: `type ==`, Subject: "a"}, {When: `true`, Subject: "b"}, {When: `"x"`, Subject: "c"}}})
	all := fault.Flatten(err)
	if len(all) != 2 {
		t.Fatalf("got %v", err)
	}
	for i, where := range []string{"route.rules[0].when", "route.rules[2].when"} {
		if f, ok := fault.As(all[i]); !ok || f.Code != "route/condition" || f.Where != where {
			t.Errorf("fault %d is %v", i, all[i])
		}
	}
}

func TestRouterSendsEachEventToTheFirstRuleThatHolds(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const in, out = "events.enriched", "events.routed"
	conn := connect(t, b, b.Grant(t, wire.Grant{
		Service: "route", Consumes: []wire.Source{{Stream: in}},
		Publish: []wire.Route{{Subject: out + ".push", Stream: out}, {Subject: out + ".big", Stream: out}},
	}))
	r, err := newRouter(manifest.RouteBy{Rules: []manifest.Rule{
		{When: `type == "PushEvent"`, Subject: out + ".push"}, {When: `size > 10`, Subject: out + ".big"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	topics := topics(conn.Grant())
	if len(topics) != 1 || topics[0].Subject() != in {
		t.Fatalf("topics are %v", topics)
	}
	stage, err := bus.NewStage(conn, topics[0], r.handle, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, stage)
	builder := bus.NewBuilder(wire.CodecZstd)
	for _, e := range []string{`{"type":"PushEvent","size":11}`, `{"size":11}`, `{"size":"11"}`, `{"size":`, `{"type":"PushEvent"}`} {
		builder.Add([]byte(e))
	}
	if _, err := b.JS.Publish(t.Context(), in, builder.Frame()); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 5 }, "all events are handled")
	got := events(t, b, out)
	slices.Sort(got)
	if want := []string{`{"size":11}`, `{"type":"PushEvent","size":11}`, `{"type":"PushEvent"}`}; !slices.Equal(got, want) {
		t.Fatalf("routed %q, want %q", got, want)
	}
	dead, err := b.JS.Stream(t.Context(), wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	for index, code := range map[int]string{2: "route/no-match", 3: "route/invalid-json"} {
		msg, err := dead.GetLastMsgForSubject(t.Context(), wire.DeadSubject("route", wire.EventID{Stream: in, Seq: 1, Index: index}))
		if err != nil || msg.Header.Get(wire.HeaderCode) != code {
			t.Errorf("event %d: %v, want it parked under %s", index, err, code)
		}
	}
}

// What does routing by one field cost for a megabyte, by the fields and by decoding the whole?
func BenchmarkRoute(b *testing.B) {
	body := sample(b)
	var lines [][]byte
	for line := range strings.Lines(string(body)) {
		lines = append(lines, []byte(strings.TrimSuffix(line, "\n")))
	}
	for _, full := range []bool{false, true} {
		r, err := newRouter(manifest.RouteBy{Rules: []manifest.Rule{
			{When: `type == "WatchEvent"`, Subject: "w"}, {When: `type == "PushEvent" and payload.size > 0`, Subject: "p"},
		}, Default: "d"})
		if err != nil {
			b.Fatal(err)
		}
		if full {
			r.whole = true
		}
		b.Run(fmt.Sprintf("full=%v", full), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				for _, line := range lines {
					if _, err := r.subject(line); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(len(lines)*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
