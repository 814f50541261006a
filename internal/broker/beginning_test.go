package broker_test

import (
	"encoding/json"
	"testing"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

const twoParts = 2

// keyedLayout has one stream with a key and the service sum, which reads it, perhaps in the order of keys.
func keyedLayout(perKey bool) broker.Layout {
	src := wire.Source{Stream: "moves", Durable: "sum", Partitions: twoParts, Key: "key", PerKey: perKey}
	return broker.Layout{
		Streams:   []broker.StreamSpec{{Name: "moves", Partitions: twoParts, Key: "key", MaxBytes: 64 << 20}},
		Consumers: broker.Consumers(src),
	}
}

// storeMoves stores ten messages, the odd sequences in partition 0.
func storeMoves(t *testing.T, b *testkit.TestBroker) {
	t.Helper()
	for i := range 10 {
		publishAll(t, b.JS, wire.PartitionSubject("moves", "moves", i%twoParts), 1, 10)
	}
}

// recordDone records, as an owner does, how far a partition is done.
func recordDone(t *testing.T, b *testkit.TestBroker, p int, done uint64) {
	t.Helper()
	stream, err := b.JS.Stream(testkit.Context(t), "moves")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(wire.Owner{Partition: p, Epoch: 3, Done: done, Created: stream.CachedInfo().Created})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.Publish(testkit.Context(t), wire.OwnerSubject("sum", "moves", p), data); err != nil {
		t.Fatal(err)
	}
}

// wantPartition looks at the consumer of a partition: it lives in memory, is done up to a sequence and has so many before it.
func wantPartition(t *testing.T, b *testkit.TestBroker, p int, done, pending uint64) {
	t.Helper()
	info := consumerInfo(t, b.JS, "moves", wire.PartitionDurable("sum", p))
	if info == nil {
		t.Fatalf("partition %d has no consumer", p)
	}
	if !info.Config.MemoryStorage || info.AckFloor.Stream != done || info.NumPending != pending {
		t.Errorf("partition %d: in memory %v, done up to %d with %d to come, want true, %d and %d",
			p, info.Config.MemoryStorage, info.AckFloor.Stream, info.NumPending, done, pending)
	}
}

// restart stops the broker and starts it again, which forgets what only its memory held.
func restart(t *testing.T, b *testkit.TestBroker) {
	t.Helper()
	b.Restart(t)
	testkit.Eventually(t, b.NC.IsConnected, "the test is connected to the broker again")
	if consumerInfo(t, b.JS, "moves", wire.PartitionDurable("sum", 0)) != nil {
		t.Fatal("a consumer in memory outlived the broker")
	}
}

func TestPositionsOfPartitionsOutliveTheBroker(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	provision(t, b.JS, keyedLayout(true))
	storeMoves(t, b)
	recordDone(t, b, 0, 5)
	restart(t, b)
	provision(t, b.JS, keyedLayout(true))
	wantPartition(t, b, 0, 5, 2)
	wantPartition(t, b, 1, 0, 5)
}

func TestPositionInAStreamThatWasMadeAnewIsItsStart(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	provision(t, b.JS, keyedLayout(true))
	storeMoves(t, b)
	recordDone(t, b, 0, 5)
	if err := b.JS.DeleteStream(testkit.Context(t), "moves"); err != nil {
		t.Fatal(err)
	}
	provision(t, b.JS, keyedLayout(true))
	storeMoves(t, b)
	wantPartition(t, b, 0, 0, 5)
}

func TestOrderOfKeysCanBeginAndEndBesideARestart(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	provision(t, b.JS, keyedLayout(false))
	storeMoves(t, b)
	ack(t, fetch(t, b.JS, "moves", "sum", 4)...)
	testkit.Eventually(t, func() bool { return consumerInfo(t, b.JS, "moves", "sum").AckFloor.Stream == 4 }, "four messages are acknowledged")

	provision(t, b.JS, keyedLayout(true))
	wantPartition(t, b, 0, 4, 3)
	wantPartition(t, b, 1, 4, 3)
	restart(t, b)
	provision(t, b.JS, keyedLayout(true))
	wantPartition(t, b, 0, 4, 3)
	wantPartition(t, b, 1, 4, 3)

	recordDone(t, b, 0, 9)
	recordDone(t, b, 1, 6)
	restart(t, b)
	provision(t, b.JS, keyedLayout(false))
	if info := consumerInfo(t, b.JS, "moves", "sum"); info.Config.MemoryStorage || info.AckFloor.Stream != 6 || info.NumPending != 4 {
		t.Errorf("the service goes on without order behind %d with %d to come (in memory: %v), want 6 and 4 on disk",
			info.AckFloor.Stream, info.NumPending, info.Config.MemoryStorage)
	}
}

func TestPositionThatAFileHeldIsRecorded(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	before := keyedLayout(true)
	for i := range before.Consumers {
		before.Consumers[i].PerKey = false // as it was once
	}
	provision(t, b.JS, before)
	storeMoves(t, b)
	ack(t, fetch(t, b.JS, "moves", wire.PartitionDurable("sum", 0), 3)...)
	testkit.Eventually(t, func() bool {
		return consumerInfo(t, b.JS, "moves", wire.PartitionDurable("sum", 0)).AckFloor.Stream == 5
	}, "three messages are acknowledged")
	provision(t, b.JS, keyedLayout(true))
	wantPartition(t, b, 0, 5, 2)
	restart(t, b)
	provision(t, b.JS, keyedLayout(true))
	wantPartition(t, b, 0, 5, 2)
	wantPartition(t, b, 1, 0, 5)
}
