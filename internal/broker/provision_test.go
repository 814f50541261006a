package broker_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func provision(t *testing.T, js jetstream.JetStream, layout broker.Layout) {
	t.Helper()
	if err := broker.Provision(testkit.Context(t), js, layout); err != nil {
		t.Fatalf("provision: %v", err)
	}
}

// consumerInfo asks for a consumer, or returns nil when there is none.
func consumerInfo(t *testing.T, js jetstream.JetStream, stream, durable string) *jetstream.ConsumerInfo {
	t.Helper()
	c, err := js.Consumer(testkit.Context(t), stream, durable)
	if err == jetstream.ErrConsumerNotFound {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo()
}

func testLayout() broker.Layout {
	return broker.Layout{
		Streams: []broker.StreamSpec{
			{Name: "events.raw", Keep: time.Hour, MaxBytes: 64 << 20, Dedupe: time.Minute},
			{Name: "scratch", MaxBytes: 1 << 20, Memory: true},
		},
		Consumers: []broker.ConsumerSpec{
			{Stream: "events.raw", Durable: "classify"},
			{Stream: "events.raw", Durable: "archive", Subjects: []string{"events.raw.a", "events.raw.b"}, Ordered: true},
			{Stream: "hozo.retry", Durable: "classify", Subjects: []string{"hozo.retry.classify.>"}},
		},
		Queues: []broker.QueueSpec{{Name: "mail", Kinds: []string{"mail.send"}}},
	}
}

func TestProvisioningTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := testLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events.raw.a", 5, 10)
	ack(t, fetch(t, b.JS, "events_raw", "classify", 2)...)
	look := func() (all []any) {
		for _, c := range [][2]string{{"events_raw", "classify"}, {"events_raw", "archive"}, {"hozo_retry", "classify"}, {"hozo_tasks_mail", "mail_send@2"}} {
			info := consumerInfo(t, b.JS, c[0], c[1])
			all = append(all, info.Created, info.Config, info.AckFloor, info.Delivered)
		}
		for _, name := range []string{"events_raw", "scratch", "hozo_dlq", "hozo_retry", "hozo_record", "hozo_tasks_mail"} {
			stream, err := b.JS.Stream(testkit.Context(t), name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, stream.CachedInfo().Created, stream.CachedInfo().Config)
		}
		return all
	}
	before := look()
	changes, err := b.NC.SubscribeSync("$JS.EVENT.ADVISORY.*.*.>") // STREAM.UPDATED, CONSUMER.CREATED, …
	if err != nil {
		t.Fatal(err)
	}
	provision(t, b.JS, layout)
	if diff := cmp.Diff(before, look()); diff != "" {
		t.Errorf("the second time changed (-before +after):\n%s", diff)
	}
	if n, _, err := changes.Pending(); err != nil || n > 0 {
		t.Errorf("the second time made %d changes (%v)", n, err)
	}
}

func TestChangedConsumersKeepTheirPositions(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := testLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events.raw.a", 5, 10)
	ack(t, fetch(t, b.JS, "events_raw", "classify", 3)...)
	ack(t, fetch(t, b.JS, "events_raw", "archive", 2)[1])

	layout.Streams[0].MaxBytes = 32 << 20
	layout.Consumers[0].Subjects = []string{"events.raw.>"} // another filter
	layout.Consumers[1].Ordered = false                     // another way to acknowledge
	provision(t, b.JS, layout)
	stream, err := b.JS.Stream(testkit.Context(t), "events_raw")
	if err != nil {
		t.Fatal(err)
	}
	if info := stream.CachedInfo(); info.Config.MaxBytes != 32<<20 || info.State.Msgs != 5 {
		t.Errorf("stream holds %d of 5 messages and its limit is %d", info.State.Msgs, info.Config.MaxBytes)
	}
	for durable, want := range map[string]uint64{"classify": 4, "archive": 3} {
		msg := fetch(t, b.JS, "events_raw", durable, 1)[0]
		if meta, err := msg.Metadata(); err != nil || meta.Sequence.Stream != want {
			t.Errorf("%s goes on at %v (%v), want %d", durable, meta, err, want)
		}
	}
}

func TestConsumerMovedByItsReaderIsKeptWhereItIs(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := testLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events.raw.a", 5, 10)
	moved := consumerInfo(t, b.JS, "events_raw", "archive").Config
	moved.DeliverPolicy, moved.OptStartSeq = jetstream.DeliverByStartSequencePolicy, 4
	if err := b.JS.DeleteConsumer(testkit.Context(t), "events_raw", "archive"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.CreateConsumer(testkit.Context(t), "events_raw", moved); err != nil {
		t.Fatal(err)
	}
	provision(t, b.JS, layout)
	if meta, err := fetch(t, b.JS, "events_raw", "archive", 1)[0].Metadata(); err != nil || meta.Sequence.Stream != 4 {
		t.Errorf("the reader goes on at %v (%v), want 4", meta, err)
	}
}

func TestUndeclaredConsumersGoAndUndeclaredStreamsStay(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := testLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events.raw", 1, 10)
	layout.Consumers = layout.Consumers[1:2]
	layout.Queues[0].Kinds = []string{"mail.drop"}
	provision(t, b.JS, layout)
	for _, c := range [][2]string{{"events_raw", "classify"}, {"hozo_retry", "classify"}, {"hozo_tasks_mail", "mail_send@2"}} {
		if consumerInfo(t, b.JS, c[0], c[1]) != nil {
			t.Errorf("consumer %s of %s is left", c[1], c[0])
		}
	}
	if consumerInfo(t, b.JS, "events_raw", "archive") == nil {
		t.Error("the declared consumer is gone")
	}
	provision(t, b.JS, broker.Layout{})
	if n := streamState(t, b.JS, "events_raw").Msgs; n != 1 {
		t.Errorf("the undeclared stream holds %d messages, want 1", n)
	}
}

func TestFullStreamRefusesTheNewest(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	provision(t, b.JS, broker.Layout{Streams: []broker.StreamSpec{{Name: "small", MaxBytes: 10_000}}})
	publishAll(t, b.JS, "small", 3, 3000)
	if _, err := b.JS.Publish(testkit.Context(t), "small", make([]byte, 3000)); err == nil {
		t.Error("12 kB fit into 10 kB")
	}
	if state := streamState(t, b.JS, "small"); state.FirstSeq != 1 || state.Msgs != 3 {
		t.Errorf("stream holds %d messages from %d, want the first three", state.Msgs, state.FirstSeq)
	}
}

func TestEventIsParkedOnce(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	provision(t, b.JS, broker.Layout{})
	once := jetstream.WithExpectLastSequencePerSubject(0)
	if _, err := b.JS.Publish(testkit.Context(t), "hozo.dlq.a.raw.1.0", nil, once); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.Publish(testkit.Context(t), "hozo.dlq.a.raw.1.0", nil, once); err == nil {
		t.Error("one event was parked twice")
	}
	if _, err := b.JS.Publish(testkit.Context(t), "hozo.dlq.a.raw.1.0", nil); err == nil {
		t.Error("one event was parked twice by a careless publisher")
	}
}

func TestImpossibleLayoutsAreFaults(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	provision(t, b.JS, testLayout())
	for name, c := range map[string]struct {
		layout broker.Layout
		code   string
	}{
		"more than the store":    {broker.Layout{Streams: []broker.StreamSpec{{Name: "huge", MaxBytes: 1 << 50}}}, "broker/no-room"},
		"from memory to disk":    {broker.Layout{Streams: []broker.StreamSpec{{Name: "scratch", MaxBytes: 1 << 20}}}, "broker/storage-change"},
		"growing over the store": {broker.Layout{Streams: []broker.StreamSpec{{Name: "events.raw", MaxBytes: 1 << 50}}}, "broker/no-room"},
	} {
		err := broker.Provision(testkit.Context(t), b.JS, c.layout)
		if f, ok := fault.As(err); !ok || f.Code != c.code || f.Fix == "" {
			t.Errorf("%s: %v, want %s with a fix", name, err, c.code)
		}
	}
}
