package bus_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) {
	testkit.Main(m, testkit.Child("mover", runMover), testkit.Child("joiner", runJoiner), testkit.Child("giver", runGiver))
}

// item is the event of these tests: N tells it apart.
type item struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

// dial connects as a service with grant g; the connection is closed at the end of t.
func dial(t testing.TB, b *testkit.TestBroker, g wire.Grant) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: b.Grant(t, g), Run: "run", Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// start runs r until the end of t, or until stop is called; it returns when r is ready.
func start(t testing.TB, r lifecycle.Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	testkit.Wait(t, r.Ready())
	return stop
}

func route(subject, stream string) wire.Route { return wire.Route{Subject: subject, Stream: stream} }

// fill stores frames of perFrame items each, numbered from 0 to n-1, on subject.
func fill(t testing.TB, c *bus.Conn, subject string, n, perFrame int) {
	t.Helper()
	b := bus.NewBuilder(wire.CodecZstd)
	for i := range n {
		b.Add(encoded(t, item{N: i, Text: fmt.Sprintf("item number %d of %d", i, n)}))
		if b.Len() == perFrame || i == n-1 {
			if _, err := c.PublishFrame(testkit.Context(t), subject, nil, b.Frame()); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
}

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// ledger counts how often each item was seen.
type ledger struct {
	mu   sync.Mutex
	seen map[int]int
	all  int
	want int
	full chan struct{} // closed when want distinct items were seen
}

func newLedger(want int) *ledger {
	return &ledger{seen: make(map[int]int), want: want, full: make(chan struct{})}
}

func (l *ledger) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[n]++
	l.all++
	if l.seen[n] == 1 && len(l.seen) == l.want {
		close(l.full)
	}
}

// exact fails t unless every item from 0 to want-1 was seen once.
func (l *ledger) exact(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, doubled := 0, 0
	for n := range l.want {
		switch count := l.seen[n]; {
		case count == 0:
			lost++
		case count > 1:
			doubled++
		}
	}
	if lost > 0 || doubled > 0 || len(l.seen) != l.want {
		t.Errorf("of %d items %d were lost and %d doubled; %d different ones seen", l.want, lost, doubled, len(l.seen))
	}
}

// stored reads every event that a stream holds now, as the platform's user.
func stored(t testing.TB, b *testkit.TestBroker, stream string) []storedEvent {
	t.Helper()
	ctx := testkit.Context(t)
	s, err := b.JS.Stream(ctx, wire.StreamName(stream))
	if err != nil {
		t.Fatal(err)
	}
	state := s.CachedInfo().State
	if state.Msgs == 0 {
		return nil
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	var all []storedEvent
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("read stream %s: %v", stream, err)
		}
		frame, err := bus.OpenFrame(stream, msg)
		if err != nil {
			t.Fatal(err)
		}
		events, err := frame.Events()
		if err != nil {
			t.Fatal(err)
		}
		for i, data := range events {
			all = append(all, storedEvent{frame.ID(i), msg, data})
		}
		if frame.Seq == state.LastSeq {
			return all
		}
	}
}

type storedEvent struct {
	id   wire.EventID
	msg  jetstream.Msg
	data []byte
}

// items counts the items that a stream holds in a ledger.
func items(t testing.TB, b *testkit.TestBroker, stream string, want int) *ledger {
	t.Helper()
	l := newLedger(want)
	for _, e := range stored(t, b, stream) {
		var v item
		if err := json.Unmarshal(e.data, &v); err != nil {
			t.Fatalf("%s: %v", e.id, err)
		}
		l.add(v.N)
	}
	return l
}

// settled waits until the durable has nothing left to deliver or to acknowledge.
func settled(t testing.TB, b *testkit.TestBroker, stream, durable string) {
	t.Helper()
	testkit.Eventually(t, func() bool {
		ctx := testkit.Context(t)
		handle, err := b.JS.Stream(ctx, wire.StreamName(stream))
		if err != nil {
			return false
		}
		consumer, err := handle.Consumer(ctx, durable)
		if err != nil {
			return false
		}
		// NumPending alone would not do: the consumer counts a message some time after it was stored.
		info, last := consumer.CachedInfo(), uint64(0)
		filters := append(info.Config.FilterSubjects, info.Config.FilterSubject)
		for _, filter := range filters {
			if filter == "" && len(filters) > 1 {
				continue // the list says it
			}
			msg, err := handle.GetLastMsgForSubject(ctx, cmp.Or(filter, ">"))
			if err == nil {
				last = max(last, msg.Sequence)
			} else if !errors.Is(err, jetstream.ErrMsgNotFound) {
				return false
			}
		}
		return info.AckFloor.Stream >= last && info.NumPending == 0 && info.NumAckPending == 0
	}, "consumer "+durable+" has finished "+stream)
}

const quick = 20 * time.Millisecond

// The long-lived parts fit into the platform's start and stop order.
var (
	_ lifecycle.Runner = (*bus.Stage)(nil)
	_ lifecycle.Runner = (*bus.Server)(nil)
	_ lifecycle.Runner = (*bus.Watcher)(nil)
	_ lifecycle.Runner = (*bus.Publisher)(nil)
)
