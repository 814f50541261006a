package sink_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/file"
	"github.com/hozo-dev/hozo/wire"
)

func TestSinkStoresTheStreamInOrderAndGoesOnAfterRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	next := r.publish(0, 20, 7)
	conn := r.connect()
	target := r.database()
	s, stop := r.start(conn, target, sink.Config{})
	testkit.Wait(t, s.Ready())
	r.awaitRows(next)
	if err := stop(); err != nil {
		t.Fatalf("stop gave %v", err)
	}
	if got := conn.Counters().EventsIn.Load(); got != uint64(next) {
		t.Errorf("%d events counted, want %d", got, next)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	next = r.publish(next, 20, 3)
	r.start(r.connect(), r.database(), sink.Config{})
	r.awaitRows(next)
}

func TestFailingTargetIsTriedUntilItWorks(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	next := r.publish(0, 5, 2)
	database := r.database()
	failures := 0
	target := &wrapped{Target: database, write: func(ctx context.Context, b sink.Batch) (uint64, error) {
		if failures++; failures%3 != 0 {
			if failures%2 == 0 { // committed, and the answer lost
				_, _ = database.Write(ctx, b)
			}
			return 0, errors.New("no space left on device")
		}
		return database.Write(ctx, b)
	}}
	r.start(r.connect(), target, sink.Config{Backoff: time.Millisecond, BatchBytes: 20})
	r.awaitRows(next)
}

func TestPoisonIsParkedAndItsNeighboursLand(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	r.publish(0, 1, 3)
	builder := bus.NewBuilder(wire.CodecZstd)
	for _, e := range []string{`{"n":3}`, `{"n":`, `{"n":4}`} {
		builder.Add([]byte(e))
	}
	if _, err := r.broker.JS.Publish(t.Context(), stream, builder.Frame()); err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), builder.Frame()...)
	damaged[len(damaged)-1] ^= 1
	if _, err := r.broker.JS.Publish(t.Context(), stream, damaged); err != nil {
		t.Fatal(err)
	}
	next := r.publish(5, 1, 2)
	conn := r.connect()
	r.start(conn, r.database(), sink.Config{})
	r.awaitRows(next)
	dead, err := r.broker.JS.Stream(t.Context(), wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	for id, code := range map[wire.EventID]string{
		{Stream: stream, Seq: 2, Index: 1}: "sqlite/invalid-json",
		{Stream: stream, Seq: 3, Index: 0}: bus.CodeBadFrame,
	} {
		msg, err := dead.GetLastMsgForSubject(t.Context(), wire.DeadSubject("archive", id))
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if got := msg.Header.Get(wire.HeaderCode); got != code {
			t.Errorf("%s is parked under %q, want %q", id, got, code)
		}
	}
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 9 }, "every event counted")
}

func TestGatheredRowsAreFlushedByAge(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	r.publish(0, 1, 1)
	dir := t.TempDir()
	lake, err := file.Open(dir, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	flushed := make(chan uint64, 1)
	target := &wrapped{Target: lake, flush: func(ctx context.Context, source string) (uint64, error) {
		w, err := lake.Flush(ctx, source)
		select {
		case flushed <- w:
		default:
		}
		return w, err
	}}
	_, stop := r.start(r.connect(), target, sink.Config{FlushAge: 30 * time.Millisecond})
	if w := testkit.Wait(t, flushed); w != 1 {
		t.Fatalf("flushed up to %d, want 1", w)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := lake.Close(); err != nil {
		t.Fatal(err)
	}
}

// A gathering target holds far more than the reader's window; reading must go on all the same.
func TestGatheringMoreThanTheReadersWindowDoesNotStall(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	const frames = 60 // of 250 KB that do not compress: 15 MB
	event := make([]byte, 250<<10)
	for i := range event {
		event[i] = byte('a' + i%26)
	}
	builder := bus.NewBuilder(wire.CodecNone)
	for range frames {
		builder.Reset()
		builder.Add(event)
		if _, err := r.broker.JS.Publish(testkit.Context(t), stream, builder.Frame()); err != nil {
			t.Fatal(err)
		}
	}
	lake, err := file.Open(t.TempDir(), file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan uint64, frames) // one a batch at most
	target := &wrapped{Target: lake, write: func(ctx context.Context, b sink.Batch) (uint64, error) {
		w, err := lake.Write(ctx, b)
		taken <- b.Last()
		return w, err
	}}
	_, stop := r.start(r.connect(), target, sink.Config{FlushAge: time.Hour})
	for testkit.Wait(t, taken) < frames {
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := lake.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLostRowsAreReadAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.Broker(t))
	next := r.publish(0, 6, 2)
	database := r.database()
	var held []sink.Batch // what a gathering target would hold
	lost := false
	target := &wrapped{Target: database, write: func(ctx context.Context, b sink.Batch) (uint64, error) {
		if !lost && len(held) == 0 {
			held = append(held, b)
			return 0, nil
		}
		if !lost {
			lost = true
			return 0, fmt.Errorf("sync: %w", sink.ErrLost)
		}
		return database.Write(ctx, b)
	}}
	r.start(r.connect(), target, sink.Config{BatchBytes: 1, Backoff: time.Millisecond})
	r.awaitRows(next)
}

func TestBrokerRestartsNeitherLoseNorRepeat(t *testing.T) {
	t.Parallel()
	r := newRig(t, testkit.BrokerProcess(t))
	r.start(r.connect(), r.database(), sink.Config{})
	next := 0
	for range 3 {
		next = r.publish(next, 15, 3)
		r.broker.Kill(t)
		r.broker.Start(t)
		testkit.Eventually(t, func() bool {
			_, err := r.broker.JS.AccountInfo(t.Context())
			return err == nil
		}, "the broker is back")
	}
	next = r.publish(next, 5, 3)
	r.awaitRows(next)
}
