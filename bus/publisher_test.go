package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func newPublisher(t testing.TB, c *bus.Conn, subject string, cfg bus.PublisherConfig) *bus.Publisher {
	t.Helper()
	p, err := c.NewPublisher(subject, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublisherTellsEveryCallerTheNameOfItsEvents(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{})
	start(t, p)
	const callers, calls, perCall = 16, 20, 3
	var mu sync.Mutex
	ids := map[wire.EventID]string{}
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for call := range calls {
				events := make([][]byte, perCall)
				for i := range events {
					events[i] = fmt.Appendf(nil, `{"caller":%d,"call":%d,"i":%d}`, caller, call, i)
				}
				first, err := p.Publish(testkit.Context(t), events...)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, e := range events {
					ids[wire.EventID{Stream: first.Stream, Seq: first.Seq, Index: first.Index + i}] = string(e)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	events := stored(t, b, "events.raw")
	if want := callers * calls * perCall; len(events) != want || len(ids) != want {
		t.Fatalf("%d events stored under %d names, want %d", len(events), len(ids), want)
	}
	frames := map[uint64]bool{}
	for _, e := range events {
		frames[e.id.Seq] = true
		if ids[e.id] != string(e.data) {
			t.Errorf("%s is %s, its caller was told %s", e.id, e.data, ids[e.id])
		}
	}
	if len(frames) >= callers*calls {
		t.Errorf("%d frames for %d calls: nothing shared a frame", len(frames), callers*calls)
	}
}

func TestPublisherWithoutFramesNamesEachMessage(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, wire.Grant{Publish: []wire.Route{{Subject: "plain", Stream: "plain", Compression: "none"}}})
	p := newPublisher(t, c, "plain", bus.PublisherConfig{})
	for n := range 3 {
		id, err := p.Publish(testkit.Context(t), encoded(t, item{N: n}))
		if want := (wire.EventID{Stream: "plain", Seq: uint64(n + 1)}); err != nil || id != want {
			t.Errorf("event %d is %v (%v), want %v", n, id, err, want)
		}
	}
	items(t, b, "plain", 3).exact(t)
}

func TestTopicPublishStoresItsValue(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := producer(t, b)
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			if _, err := rawTopic.Publish(testkit.Context(t), c, item{N: n}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	items(t, b, "events.raw", 50).exact(t)
	if _, err := doneTopic.Publish(testkit.Context(t), c, item{}); fault.Code(err) != bus.CodeNoRoute {
		t.Errorf("publishing without a route: %v", err)
	}
}

func TestPublisherPassesOnThatTheStreamIsFull(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "events.raw", MaxBytes: 64 << 10})
	c := dial(t, b, wire.Grant{Publish: []wire.Route{{Subject: "events.raw", Stream: "events.raw", Compression: "none", Frames: true, Full: wire.FullFail}}})
	p := newPublisher(t, c, "events.raw", bus.PublisherConfig{})
	var err error
	for n := 0; err == nil && n < 10; n++ {
		_, err = p.Publish(testkit.Context(t), make([]byte, 20<<10))
	}
	if fault.Code(err) != bus.CodeStreamFull {
		t.Fatalf("error is %v, want %s", err, bus.CodeStreamFull)
	}
	if f, _ := fault.As(err); f.Fix == "" {
		t.Error("it does not say what to do")
	}
	stream, err := b.JS.Stream(testkit.Context(t), "events_raw")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(testkit.Context(t), []byte("{}")); err != nil {
		t.Errorf("the stream has room again, and still: %v", err)
	}
}

func TestPublisherRefusesWhatFitsInNoMessage(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := producer(t, b)
	p := newPublisher(t, c, "events.raw", bus.PublisherConfig{})
	if _, err := p.Publish(testkit.Context(t), make([]byte, c.NATS().MaxPayload())); fault.Code(err) != bus.CodeTooLarge {
		t.Errorf("error is %v, want %s", err, bus.CodeTooLarge)
	}
	if _, err := p.Publish(testkit.Context(t)); err == nil {
		t.Error("publishing nothing is no mistake")
	}
}

func TestPublisherStoresWhatItTookBeforeItStops(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{Linger: time.Hour})
	stop := start(t, p)
	if _, err := p.Publish(testkit.Context(t), encoded(t, item{N: 0})); err != nil { // alone, so it does not linger
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 20) // one a caller
	for n := range 20 {
		wg.Go(func() {
			_, err := p.Publish(testkit.Context(t), encoded(t, item{N: n + 1}))
			errs <- err
		})
	}
	testkit.Wait(t, errs) // the first of them went alone or is in a frame that another filled; the rest linger
	stop()
	wg.Wait()
	close(errs)
	acked := 2 // the two above
	for err := range errs {
		if err == nil {
			acked++
		} else if fault.Code(err) != bus.CodeUnavailable {
			t.Errorf("refused with %v", err)
		}
	}
	if got := len(items(t, b, "events.raw", 21).seen); got != acked {
		t.Errorf("%d events stored, %d acknowledged", got, acked)
	}
	if _, err := p.Publish(testkit.Context(t), []byte("{}")); fault.Code(err) != bus.CodeUnavailable {
		t.Errorf("a stopped publisher gives %v", err)
	}
}

func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	p := newPublisher(t, producer(t, b), "events.raw", bus.PublisherConfig{})
	b.Kill(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*quick, errors.New("the client has gone"))
	defer cancel()
	_, err := p.Publish(ctx, []byte("{}"))
	if fault.Code(err) != bus.CodeUnavailable || ctx.Err() == nil {
		t.Errorf("error is %v", err)
	}
	b.Start(t)
}

func TestPublishFrameRecognisesARepeat(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := producer(t, b)
	h := nats.Header{jetstream.MsgIDHeader: {"one"}}
	first, err := c.PublishFrame(testkit.Context(t), "events.raw", h, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.PublishFrame(testkit.Context(t), "events.raw", h, []byte("{}"))
	if err != nil || !second.Duplicate || second.Sequence != first.Sequence {
		t.Errorf("the repeat gave %+v, %v", second, err)
	}
	if len(h) != 1 {
		t.Errorf("the caller's header became %v", h)
	}
	expect := func(seq uint64) error {
		_, err := c.PublishFrame(testkit.Context(t), "events.raw.p1", nil, []byte("{}"), jetstream.WithExpectLastSequencePerSubject(seq))
		return err
	}
	if err := expect(0); err != nil {
		t.Fatal(err)
	}
	if err := expect(0); fault.Code(err) != bus.CodeWrongSequence {
		t.Errorf("an expectation that does not hold gives %v", err)
	}
	if err := expect(2); err != nil {
		t.Error(err)
	}
	if _, err := c.PublishFrame(testkit.Context(t), "events.done", nil, nil); fault.Code(err) != bus.CodeNoRoute {
		t.Errorf("an undeclared subject gives %v", err)
	}
}

func TestParkStoresAnEventOnceForEver(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, workerGrant())
	id := wire.EventID{Stream: "events.raw", Seq: 9, Index: 4}
	for range 2 {
		err := c.Park(testkit.Context(t), bus.Parked{Event: id, Subject: "events.raw", Data: []byte(`{"n":1}`), Err: errors.New("no"), Attempts: 3})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := stored(t, b, wire.DeadStream); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
	large := wire.EventID{Stream: "events.raw", Seq: 10}
	if err := c.Park(testkit.Context(t), bus.Parked{Event: large, Data: make([]byte, 5<<20), Err: errors.New("no")}); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, b, wire.DeadStream); len(got) != 2 || len(got[1].data) != 5<<20 {
		t.Errorf("an event larger than a message was not kept")
	}
}

func TestReportsTellTheTotals(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := producer(t, b)
	reports := make(chan *nats.Msg, 16) // more than can come in the time of this test
	sub, err := b.NC.ChanSubscribe(wire.ReportSubject+".producer.1", reports)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := b.NC.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := rawTopic.Publish(testkit.Context(t), c, item{N: 1}); err != nil {
		t.Fatal(err)
	}
	c.Counters().EventsIn.Add(5)
	c.Counters().SetWorkers(1)
	done := c.Counters().Working()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.RunReports(ctx); err != nil {
			t.Error(err)
		}
	})
	var r wire.Report
	for range 2 { // the second one covers a whole second at work
		if err := json.Unmarshal(testkit.Wait(t, reports).Data, &r); err != nil {
			t.Fatal(err)
		}
	}
	done()
	cancel()
	wg.Wait()
	if r.Service != "producer" || r.Instance != 1 || r.Run != "run" || r.EventsIn != 5 || r.EventsOut != 1 ||
		r.BytesOut != uint64(len(`{"n":1}`)) || r.Routes["events.raw"] != 1 || r.Busy < 0.9 {
		t.Errorf("report is %+v", r)
	}
	testkit.Wait(t, reports) // the last one, on the way out
}

func TestBusyIsTheTimeInWhichEveryWorkerWorks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c bus.Counters
		c.SetWorkers(2)
		first := c.Working()
		<-time.After(time.Second) // the time of the bubble: one of two works
		second := c.Working()
		<-time.After(2 * time.Second)
		second()
		<-time.After(4 * time.Second)
		first()
		if got := bus.FullTime(&c); got != 2*time.Second {
			t.Errorf("every worker was busy for %v, want 2s", got)
		}
	})
}
