package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

var (
	rawTopic  = bus.NewTopic[item]("events.raw")
	doneTopic = bus.NewTopic[item]("events.done")
)

// worker is a grant that reads events.raw and writes events.done.
func workerGrant() wire.Grant {
	return wire.Grant{
		Service:  "worker",
		Consumes: []wire.Source{{Stream: "events.raw"}},
		Publish:  []wire.Route{route("events.done", "events.done")},
	}
}

func producer(t testing.TB, b *testkit.TestBroker) *bus.Conn {
	return dial(t, b, wire.Grant{Service: "producer", Publish: []wire.Route{
		route("events.raw", "events.raw"), route("events.raw.>", "events.raw"),
	}})
}

func copyItem(_ context.Context, e bus.Event[item], out *bus.Out) error {
	return doneTopic.Send(out, e.Value)
}

func newStage[T any](t testing.TB, c *bus.Conn, topic bus.Topic[T], fn bus.HandlerFunc[T], cfg bus.StageConfig) *bus.Stage {
	t.Helper()
	s, err := bus.NewStage(c, topic, fn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStageHandsOnEveryEventOnce(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const n = 5000
	c := dial(t, b, workerGrant())
	fill(t, producer(t, b), "events.raw", n, 100)
	start(t, newStage(t, c, rawTopic, copyItem, bus.StageConfig{Workers: 4}))
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", n).exact(t)
	if got := c.Counters().EventsIn.Load(); got != n {
		t.Errorf("counted %d events in, want %d", got, n)
	}
}

func TestStageGivesTheHandlerTheWholeEvent(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, workerGrant())
	fill(t, producer(t, b), "events.raw.eu", 3, 3)
	got := make(chan bus.Event[item], 3) // one slot an event
	start(t, newStage(t, c, rawTopic, func(_ context.Context, e bus.Event[item], out *bus.Out) error {
		if out.EventID() != e.ID {
			t.Errorf("the output belongs to %v, the event is %v", out.EventID(), e.ID)
		}
		e.Data = slices.Clone(e.Data) // it is valid only now
		got <- e
		return nil
	}, bus.StageConfig{}))
	for i := range 3 {
		e := testkit.Wait(t, got)
		want := wire.EventID{Stream: "events.raw", Seq: 1, Index: i}
		if e.ID != want || e.Subject != "events.raw.eu" || e.Attempt != 1 || e.Value.N != i || time.Since(e.Time) > time.Minute {
			t.Errorf("event %d is %+v", i, e)
		}
		if want := fmt.Sprintf(`{"n":%d,"text":"item number %d of 3"}`, i, i); string(e.Data) != want {
			t.Errorf("data is %s, want %s", e.Data, want)
		}
	}
}

func TestPiecesOfOnePublishAreOneEvent(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, workerGrant())
	fill(t, producer(t, b), "events.raw", 3, 3)
	limit := make([]byte, c.NATS().MaxPayload()/2)
	start(t, newStage(t, c, rawTopic, func(_ context.Context, e bus.Event[item], out *bus.Out) error {
		if err := out.Publish("events.done", limit, limit); fault.Code(err) != bus.CodeTooLarge {
			t.Errorf("two halves of the largest message give %v", err)
		}
		return out.Publish("events.done", []byte(`{"more":true,`), nil, e.Data[1:])
	}, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	events := stored(t, b, "events.done")
	if len(events) != 3 {
		t.Fatalf("%d events stored, want 3", len(events))
	}
	for i, e := range events {
		if want := fmt.Sprintf(`{"more":true,"n":%d,"text":"item number %d of 3"}`, i, i); string(e.data) != want {
			t.Errorf("event %d is %s, want %s", i, e.data, want)
		}
	}
}

func TestPoisonedEventIsParkedAloneAndItsNeighboursLand(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const n, poison = 300, 150
	c := dial(t, b, workerGrant())
	fill(t, producer(t, b), "events.raw.eu", n, 100)
	var tries atomic.Int32
	start(t, newStage(t, c, rawTopic, func(_ context.Context, e bus.Event[item], out *bus.Out) error {
		if err := doneTopic.Send(out, e.Value); err != nil { // sent before it fails: must be taken back
			return err
		}
		if e.Value.N == poison {
			tries.Add(1)
			return errors.New("cannot stand\nthis one")
		}
		return nil
	}, bus.StageConfig{Workers: 2, Attempts: 3, Backoff: quick}))
	settled(t, b, "events.raw", "worker")

	l := items(t, b, "events.done", n)
	for i := range n {
		if want := map[bool]int{true: 0, false: 1}[i == poison]; l.seen[i] != want {
			t.Errorf("item %d was stored %d times, want %d", i, l.seen[i], want)
		}
	}
	if got := tries.Load(); got != 3 {
		t.Errorf("tried %d times, want 3", got)
	}
	parked := stored(t, b, wire.DeadStream)
	if len(parked) != 1 {
		t.Fatalf("%d events are parked, want 1", len(parked))
	}
	header := parked[0].msg.Headers()
	id := wire.EventID{Stream: "events.raw", Seq: 2, Index: 50}
	for name, want := range map[string]string{
		wire.HeaderSource: id.String(), wire.HeaderSubject: "events.raw.eu", wire.HeaderCode: "stage/error",
		wire.HeaderError: "cannot stand this one", wire.HeaderAttempts: "3",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	if got, want := parked[0].msg.Subject(), wire.DeadSubject("worker", id); got != want {
		t.Errorf("parked under %s, want %s", got, want)
	}
	if c.Counters().Parked.Load() != 1 || c.Counters().Retried.Load() != 2 {
		t.Errorf("counted %d parked, %d retried", c.Counters().Parked.Load(), c.Counters().Retried.Load())
	}
}

func TestHandlersVerdictsOnAnEvent(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, workerGrant())
	fill(t, producer(t, b), "events.raw", 7, 7)
	if _, err := producer(t, b).PublishFrame(testkit.Context(t), "events.raw", nil, []byte("no JSON at all")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	tries := map[int]int{}
	start(t, newStage(t, c, rawTopic, func(ctx context.Context, e bus.Event[item], out *bus.Out) error {
		mu.Lock()
		tries[e.Value.N]++
		mu.Unlock()
		if err := doneTopic.Send(out, e.Value); err != nil {
			return err
		}
		switch e.Value.N {
		case 1:
			return bus.Drop
		case 2:
			return bus.Reject("worker/too-old", errors.New("it is too old"))
		case 3:
			panic("at the sight of 3")
		case 4:
			return bus.NewTopic[item]("elsewhere").Send(out, e.Value)
		case 5:
			<-ctx.Done()
			return context.Cause(ctx)
		case 6:
			if e.Attempt == 1 {
				return errors.New("not at the first time")
			}
		}
		return nil
	}, bus.StageConfig{Workers: 1, Attempts: 2, Backoff: quick, Timeout: quick}))
	settled(t, b, "events.raw", "worker")

	var landed []int
	for n := range items(t, b, "events.done", 7).seen {
		landed = append(landed, n)
	}
	slices.Sort(landed)
	if !slices.Equal(landed, []int{0, 6}) {
		t.Errorf("landed %v, want 0 and 6", landed)
	}
	codes := map[string]string{} // by event
	for _, e := range stored(t, b, wire.DeadStream) {
		codes[e.msg.Headers().Get(wire.HeaderSource)] = e.msg.Headers().Get(wire.HeaderCode)
	}
	want := map[string]string{
		"events.raw:1:2": "worker/too-old", "events.raw:1:3": bus.CodePanic, "events.raw:1:4": bus.CodeNoRoute,
		"events.raw:1:5": bus.CodeTimeout, "events.raw:2:0": bus.CodeDecode,
	}
	for id, code := range want {
		if codes[id] != code {
			t.Errorf("%s is parked under %q, want %q", id, codes[id], code)
		}
	}
	if len(codes) != len(want) {
		t.Errorf("parked: %v", codes)
	}
	mu.Lock()
	defer mu.Unlock()
	for n, want := range map[int]int{0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 2, 6: 2} {
		if tries[n] != want {
			t.Errorf("item %d was tried %d times, want %d", n, tries[n], want)
		}
	}
	if c.Counters().Dropped.Load() != 1 {
		t.Errorf("counted %d dropped", c.Counters().Dropped.Load())
	}
}

func TestDamagedFrameIsParkedWholeAndBlocksNothing(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, workerGrant())
	p := producer(t, b)
	builder := bus.NewBuilder(wire.CodecZstd)
	builder.Add([]byte(`{"n":1}`))
	damaged := slices.Clone(builder.Frame())
	damaged[len(damaged)-1] ^= 1
	if _, err := p.PublishFrame(testkit.Context(t), "events.raw", nil, damaged); err != nil {
		t.Fatal(err)
	}
	fill(t, p, "events.raw", 10, 10)
	start(t, newStage(t, c, rawTopic, copyItem, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", 10).exact(t)

	dead, err := b.JS.Stream(testkit.Context(t), wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := dead.GetLastMsgForSubject(testkit.Context(t), "hozo.dlq.worker.events_raw.1.0")
	if err != nil {
		t.Fatal(err)
	}
	if msg.Header.Get(wire.HeaderCode) != bus.CodeBadFrame || !slices.Equal(msg.Data, damaged) {
		t.Errorf("parked under %q with %d bytes of %d", msg.Header.Get(wire.HeaderCode), len(msg.Data), len(damaged))
	}
}

func TestRetriedEventComesBackUnderItsOwnName(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, workerGrant())
	id := wire.EventID{Stream: "events.raw", Seq: 17, Index: 3}
	got := make(chan bus.Event[item], 1) // one event
	start(t, newStage(t, c, rawTopic, func(_ context.Context, e bus.Event[item], out *bus.Out) error {
		got <- e
		return doneTopic.Send(out, e.Value)
	}, bus.StageConfig{}))
	msg := &nats.Msg{
		Subject: wire.RetrySubject("worker", id), Data: []byte(`{"n":0}`),
		Header: nats.Header{wire.HeaderSubject: {"events.raw.eu"}},
	}
	if _, err := b.JS.PublishMsg(testkit.Context(t), msg); err != nil {
		t.Fatal(err)
	}
	if e := testkit.Wait(t, got); e.ID != id || e.Subject != "events.raw.eu" {
		t.Errorf("it came as %v on %s", e.ID, e.Subject)
	}
	settled(t, b, wire.RetryStream, "worker")
	items(t, b, "events.done", 1).exact(t)
}

func TestRetriedEventFindsItsStageAmongTwo(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := workerGrant()
	g.Consumes = []wire.Source{{Stream: "events.raw", Durable: "worker"}, {Stream: "users", Durable: "worker"}}
	c := dial(t, b, g)
	count := func(l *ledger) bus.HandlerFunc[item] {
		return func(_ context.Context, e bus.Event[item], _ *bus.Out) error { l.add(e.Value.N); return nil }
	}
	events, users := newLedger(10), newLedger(10)
	start(t, newStage(t, c, rawTopic, count(events), bus.StageConfig{}))
	start(t, newStage(t, c, bus.NewTopic[item]("users"), count(users), bus.StageConfig{}))
	for n := range 10 {
		for _, stream := range []string{"events.raw", "users"} {
			subject := wire.RetrySubject("worker", wire.EventID{Stream: stream, Seq: uint64(n + 1)})
			msg := &nats.Msg{Subject: subject, Data: encoded(t, item{N: n}), Header: nats.Header{wire.HeaderSubject: {stream}}}
			if _, err := b.JS.PublishMsg(testkit.Context(t), msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	testkit.Wait(t, events.full)
	testkit.Wait(t, users.full)
	settled(t, b, wire.RetryStream, "worker")
	events.exact(t)
	users.exact(t)
}

func TestStageNeedsASourceInItsGrant(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := workerGrant()
	g.Consumes = []wire.Source{{Stream: "events.raw", Subjects: []string{"events.raw.push"}, Durable: "worker"}}
	c := dial(t, b, g)
	for subject, want := range map[string]string{
		"events.raw.push": "", "events.raw": "", "events.raw.issue": bus.CodeNoSource, "users": bus.CodeNoSource,
	} {
		_, err := bus.NewStage(c, bus.NewTopic[item](subject), copyItem, bus.StageConfig{})
		if fault.Code(err) != want {
			t.Errorf("stage of %s: error is %v, want code %q", subject, err, want)
		}
	}
}

func TestStageCutsLargeOutputIntoSeveralFrames(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := workerGrant()
	g.Publish[0].Compression, g.Publish[0].Frames = "none", true
	c := dial(t, b, g)
	fill(t, producer(t, b), "events.raw", 1, 1)
	const n, size = 300, 10_000
	start(t, newStage(t, c, rawTopic, func(_ context.Context, _ bus.Event[item], out *bus.Out) error {
		for i := range n {
			if err := doneTopic.Send(out, item{N: i, Text: string(make([]byte, size/6))}); err != nil { // \u0000 takes six
				return err
			}
		}
		return nil
	}, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", n).exact(t)
	stream, err := b.JS.Stream(testkit.Context(t), "events_done")
	if err != nil {
		t.Fatal(err)
	}
	if frames := stream.CachedInfo().State.Msgs; frames != 2 { // 3 MB in frames of at most 2 MiB
		t.Errorf("%d frames, want 2", frames)
	}
}

func TestStageWithoutFramesStoresOneMessageAnEvent(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := workerGrant()
	g.Publish[0].Compression = "none"
	c := dial(t, b, g)
	fill(t, producer(t, b), "events.raw", 50, 10)
	start(t, newStage(t, c, rawTopic, copyItem, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	events := stored(t, b, "events.done")
	if len(events) != 50 {
		t.Fatalf("%d events stored", len(events))
	}
	for _, e := range events {
		if string(e.msg.Data()) != string(e.data) || e.data[0] != '{' {
			t.Fatalf("%s is not a bare event: %q", e.id, e.msg.Data())
		}
	}
	items(t, b, "events.done", 50).exact(t)
}
