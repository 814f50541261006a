package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// move is the event of these tests: the N-th of its key.
type move struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

const (
	partitions = 16
	keyed      = "moves"      // a stream with a key
	keyedOut   = "moves-done" // and another
)

var (
	moves     = bus.NewTopic[move](keyed)
	movesDone = bus.NewTopic[move](keyedOut)
)

func keyedRoute(stream string) wire.Route {
	return wire.Route{Subject: stream, Stream: stream, Partitions: partitions, Key: "key"}
}

// orderedGrant reads moves in the order of keys and writes moves-done.
func orderedGrant() wire.Grant {
	return wire.Grant{
		Service:  "mover",
		Consumes: []wire.Source{{Stream: keyed, Partitions: partitions, Key: "key", PerKey: true}},
		Publish:  []wire.Route{keyedRoute(keyedOut)},
	}
}

func mover(t testing.TB, b *testkit.TestBroker) *bus.Conn {
	return dial(t, b, wire.Grant{Service: "player", Publish: []wire.Route{keyedRoute(keyed)}})
}

func copyMove(_ context.Context, e bus.Event[move], out *bus.Out) error {
	return movesDone.Send(out, e.Value)
}

// play publishes n moves of each key, those of a key in order.
func play(t testing.TB, c *bus.Conn, keys, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for k := range keys {
		wg.Go(func() {
			for i := range n {
				if _, err := moves.Publish(testkit.Context(t), c, move{fmt.Sprintf("key-%d", k), i}); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// scores follows the moves of each key and notes what is out of order, lost or doubled.
type scores struct {
	mu    sync.Mutex
	next  map[string]int
	total int
	want  int
	full  chan struct{}
	wrong []string
}

func newScores(want int) *scores {
	return &scores{next: make(map[string]int), want: want, full: make(chan struct{})}
}

func (s *scores) add(m move) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.N != s.next[m.Key] && len(s.wrong) < 10 {
		s.wrong = append(s.wrong, fmt.Sprintf("%s: move %d came when %d was next", m.Key, m.N, s.next[m.Key]))
	}
	s.next[m.Key] = m.N + 1
	if s.total++; s.total == s.want {
		close(s.full)
	}
}

func (s *scores) check(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total != s.want {
		t.Errorf("%d moves, want %d", s.total, s.want)
	}
	for _, wrong := range s.wrong {
		t.Error(wrong)
	}
}

// result checks what a stream holds.
func result(t testing.TB, b *testkit.TestBroker, stream string, want int) {
	t.Helper()
	s := newScores(want)
	for _, e := range stored(t, b, stream) {
		if wire.IsFence(stream, e.msg.Subject()) {
			continue
		}
		s.add(decodedMove(t, e.data))
	}
	s.check(t)
}

// doneWith waits until all partitions of moves are done by service mover.
func doneWith(t testing.TB, b *testkit.TestBroker) {
	t.Helper()
	for p := range partitions {
		settled(t, b, keyed, wire.PartitionDurable("mover", p))
	}
}

func TestEachKeyIsHandledInOrderByMany(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const keys, n = 50, 40
	got := newScores(keys * n)
	for range 3 {
		c := dial(t, b, orderedGrant())
		start(t, newStage(t, c, moves, func(ctx context.Context, e bus.Event[move], out *bus.Out) error {
			got.add(e.Value)
			if e.Subject != keyed {
				t.Errorf("the event says that it was published to %s", e.Subject)
			}
			return copyMove(ctx, e, out)
		}, bus.StageConfig{Workers: 2}))
	}
	play(t, mover(t, b), keys, n)
	testkit.Wait(t, got.full)
	doneWith(t, b)
	got.check(t)
	result(t, b, keyedOut, keys*n)
}

func TestPartitionsMoveWithTheInstances(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const keys, n = 20, 60
	got := newScores(keys * n)
	stage := func(c *bus.Conn) *bus.Stage {
		return newStage(t, c, moves, func(ctx context.Context, e bus.Event[move], out *bus.Out) error {
			got.add(e.Value)
			return copyMove(ctx, e, out)
		}, bus.StageConfig{Workers: 2})
	}
	stopFirst := start(t, stage(dial(t, b, orderedGrant())))
	c := mover(t, b)
	var wg sync.WaitGroup
	wg.Go(func() { play(t, c, keys, n) })
	start(t, stage(dial(t, b, orderedGrant())))
	start(t, stage(dial(t, b, orderedGrant())))
	stopFirst()
	wg.Wait()
	testkit.Wait(t, got.full)
	doneWith(t, b)
	got.check(t)
	result(t, b, keyedOut, keys*n)
}

func TestPoisonKeyIsParkedAndItsPartitionFlows(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const keys, n = 40, 20 // more keys than partitions: the poison has neighbours
	c := dial(t, b, orderedGrant())
	got := newScores((keys - 1) * n)
	start(t, newStage(t, c, moves, func(ctx context.Context, e bus.Event[move], out *bus.Out) error {
		if e.Value.Key == "key-7" {
			return errors.New("it always fails")
		}
		got.add(e.Value)
		return copyMove(ctx, e, out)
	}, bus.StageConfig{Backoff: quick}))
	play(t, mover(t, b), keys, n)
	testkit.Wait(t, got.full)
	doneWith(t, b)
	got.check(t)
	result(t, b, keyedOut, (keys-1)*n)
	parked := stored(t, b, wire.DeadStream)
	if len(parked) != n {
		t.Fatalf("%d events are parked, want %d", len(parked), n)
	}
	attempts := 0
	for _, e := range parked {
		if m := decodedMove(t, e.data); m.Key != "key-7" {
			t.Errorf("%v is parked", m)
		}
		if subject := e.msg.Headers().Get(wire.HeaderSubject); subject != keyed {
			t.Errorf("a parked event says that it was published to %s", subject)
		}
		if e.msg.Headers().Get(wire.HeaderAttempts) == "1" {
			attempts++
		}
	}
	if attempts != n-1 {
		t.Errorf("%d events of the failing key were tried once, want all but the first of %d", attempts, n)
	}
}

func decodedMove(t testing.TB, data []byte) move {
	t.Helper()
	var m move
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Putting an event aside would let the next one of its key overtake it.
func TestRetryLaterIsRefusedInTheOrderOfKeys(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, orderedGrant())
	const keys, n = 10, 5
	got := newScores((keys - 1) * n)
	start(t, newStage(t, c, moves, func(ctx context.Context, e bus.Event[move], out *bus.Out) error {
		if e.Value.Key == "key-7" {
			return bus.RetryLater(quick)
		}
		got.add(e.Value)
		return copyMove(ctx, e, out)
	}, bus.StageConfig{Backoff: quick}))
	play(t, mover(t, b), keys, n)
	testkit.Wait(t, got.full)
	doneWith(t, b)
	got.check(t)
	result(t, b, keyedOut, (keys-1)*n)
	parked := stored(t, b, wire.DeadStream)
	if len(parked) != n {
		t.Fatalf("%d events are parked, want %d", len(parked), n)
	}
	for _, e := range parked {
		if code := e.msg.Headers().Get(wire.HeaderCode); code != bus.CodeLaterInOrder {
			t.Errorf("%s is parked with %s", e.id, code)
		}
	}
	if aside := stored(t, b, wire.RetryStream); len(aside) != 0 {
		t.Errorf("%d events are aside", len(aside))
	}
}

// A handler that never returns holds up its partition and no other, until its time is over.
func TestHangingHandlerHoldsUpItsPartitionAlone(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, orderedGrant())
	const keys, n = 40, 5
	elsewhere := 0
	for k := range keys {
		if wire.PartitionOf(fmt.Appendf(nil, "key-%d", k), partitions) != wire.PartitionOf([]byte("key-7"), partitions) {
			elsewhere++
		}
	}
	others := newScores(elsewhere * n)
	all := newScores((keys - 1) * n)
	start(t, newStage(t, c, moves, func(ctx context.Context, e bus.Event[move], out *bus.Out) error {
		if e.Value.Key == "key-7" {
			select {
			case <-others.full: // while this one hangs
			case <-t.Context().Done():
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}
		all.add(e.Value)
		if wire.PartitionOf([]byte(e.Value.Key), partitions) != wire.PartitionOf([]byte("key-7"), partitions) {
			others.add(e.Value)
		}
		return copyMove(ctx, e, out)
	}, bus.StageConfig{Workers: 2, Attempts: 1, Timeout: 300 * time.Millisecond, Backoff: quick}))
	play(t, mover(t, b), keys, n)
	testkit.Wait(t, others.full)
	testkit.Wait(t, all.full)
	doneWith(t, b)
	all.check(t)
	result(t, b, keyedOut, (keys-1)*n)
	parked := stored(t, b, wire.DeadStream)
	if len(parked) != n {
		t.Fatalf("%d events are parked, want %d", len(parked), n)
	}
	for _, e := range parked {
		if code := e.msg.Headers().Get(wire.HeaderCode); code != bus.CodeTimeout {
			t.Errorf("%s is parked with %s", e.id, code)
		}
	}
}
