package broker_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// trimLayout is a stream of 1 MB with an unordered and an ordered reader; messages of 10 kB fill a percent each.
func trimLayout() broker.Layout {
	return broker.Layout{
		Streams: []broker.StreamSpec{{Name: "events", MaxBytes: 1_000_000}},
		Consumers: []broker.ConsumerSpec{
			{Stream: "events", Durable: "stage"},
			{Stream: "events", Durable: "sink", Ordered: true},
		},
	}
}

func trim(t *testing.T, js jetstream.JetStream, layout broker.Layout) uint64 {
	t.Helper()
	n, err := broker.Trim(testkit.Context(t), js, layout)
	if err != nil {
		t.Fatalf("trim: %v", err)
	}
	return n
}

const percent = 9_900 // with its overhead a message of so many bytes is one percent of trimLayout's stream

func TestTrimDropsOnlyWhatEveryReaderHasDone(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := trimLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events", 75, percent)
	stage := fetch(t, b.JS, "events", "stage", 60)
	sink := fetch(t, b.JS, "events", "sink", 50)
	if n := trim(t, b.JS, layout); n != 0 {
		t.Errorf("dropped %d messages that nobody has acknowledged", n)
	}
	ack(t, stage[:40]...)
	ack(t, stage[50:]...) // a gap: the floor stays at 40
	ack(t, sink[29])      // everything up to 30
	if n := trim(t, b.JS, layout); n != 30 {
		t.Errorf("dropped %d messages, want the 30 that both have done", n)
	}
	if state := streamState(t, b.JS, "events"); state.FirstSeq != 31 || state.LastSeq != 75 {
		t.Errorf("stream holds %d to %d, want 31 to 75", state.FirstSeq, state.LastSeq)
	}
}

func TestTrimLeavesStreamsBelowTheirMark(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := trimLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events", 60, percent)
	ack(t, fetch(t, b.JS, "events", "stage", 60)...)
	ack(t, fetch(t, b.JS, "events", "sink", 60)[59])
	if n := trim(t, b.JS, layout); n != 0 {
		t.Errorf("dropped %d messages of a stream that is 60 %% full", n)
	}
}

func TestTrimKeepsTheNewestForRepeatedBatches(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := trimLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events", 80, percent)
	ack(t, fetch(t, b.JS, "events", "stage", 80)...)
	ack(t, fetch(t, b.JS, "events", "sink", 80)[79])
	trim(t, b.JS, layout)
	if left := streamState(t, b.JS, "events").Msgs; left < 19 || left > 21 {
		t.Errorf("%d messages are left, want about a fifth of the limit (20)", left)
	}
}

func TestTrimTreatsAnIdleFilteredReaderAsDone(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := trimLayout()
	layout.Consumers[1].Subjects = []string{"events.rare"}
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events", 75, percent)
	ack(t, fetch(t, b.JS, "events", "stage", 75)...)
	if n := trim(t, b.JS, layout); n < 50 {
		t.Errorf("dropped %d messages although the filtered reader waits for none", n)
	}
}

func TestTrimLeavesStreamsWhoseReaderIsUnknown(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	layout := trimLayout()
	provision(t, b.JS, layout)
	publishAll(t, b.JS, "events", 75, percent)
	ack(t, fetch(t, b.JS, "events", "stage", 75)...)
	if err := b.JS.DeleteConsumer(testkit.Context(t), "events", "sink"); err != nil {
		t.Fatal(err)
	}
	if n := trim(t, b.JS, layout); n != 0 {
		t.Errorf("dropped %d messages while a reader's position was not known", n)
	}
	layout.Consumers = nil
	if n := trim(t, b.JS, layout); n != 0 {
		t.Errorf("dropped %d messages of a stream that nobody reads", n)
	}
}
