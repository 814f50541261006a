package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// joined is what the tests make of a set.
type joined struct {
	Key string `json:"key"`
	Why string `json:"why"`
	N   []int  `json:"n"`
}

var joinedMoves = bus.NewTopic[joined](keyedOut)

func join(_ context.Context, s bus.Set[move], out *bus.Out) error {
	j := joined{Key: s.Key, Why: s.Why}
	for _, e := range s.Events {
		j.N = append(j.N, e.Value.N)
	}
	return joinedMoves.Send(out, j)
}

func newCollect(t testing.TB, c *bus.Conn, fn bus.CollectFunc[move], cfg bus.CollectConfig) *bus.Stage {
	t.Helper()
	s, err := bus.NewCollect(c, moves, fn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// joinedSets reads the sets that were stored.
func joinedSets(t testing.TB, b *testkit.TestBroker) (all []joined) {
	t.Helper()
	for _, e := range stored(t, b, keyedOut) {
		if wire.IsFence(keyedOut, e.msg.Subject()) {
			continue
		}
		var j joined
		if err := json.Unmarshal(e.data, &j); err != nil {
			t.Fatal(err)
		}
		all = append(all, j)
	}
	return all
}

func TestCollectJoinsTheEventsOfAKey(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const keys, n, size = 30, 7, 3
	var sets atomic.Int64
	full := make(chan struct{})
	start(t, newCollect(t, dial(t, b, orderedGrant()), func(ctx context.Context, s bus.Set[move], out *bus.Out) error {
		for _, e := range s.Events {
			if e.Subject != keyed || e.ID.Stream != keyed || e.ID.Seq == 0 || e.Time.IsZero() {
				t.Errorf("an event of a set is %+v", e)
			}
		}
		if sets.Add(1) == 2*keys {
			close(full)
		}
		return join(ctx, s, out)
	}, bus.CollectConfig{Size: size, Timeout: 24 * time.Hour}))
	play(t, mover(t, b), keys, n)
	testkit.Wait(t, full)
	testkit.Eventually(t, func() bool { return len(joinedSets(t, b)) == 2*keys }, "the sets are stored")
	next := make(map[string]int)
	for _, j := range joinedSets(t, b) {
		if j.Why != bus.WhySize || !slices.Equal(j.N, []int{next[j.Key], next[j.Key] + 1, next[j.Key] + 2}) {
			t.Errorf("set %+v, want the %d behind %d", j, size, next[j.Key])
		}
		next[j.Key] += size
	}
	if len(next) != keys {
		t.Errorf("%d keys have sets, want %d", len(next), keys)
	}
}

// The set that is incomplete is handed over when its time is over, though nothing comes any more, and what comes late is
// a set of its own.
func TestASetEndsWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	got := make(chan bus.Set[move], 10)
	start(t, newCollect(t, dial(t, b, orderedGrant()), func(_ context.Context, s bus.Set[move], _ *bus.Out) error {
		got <- s
		return nil
	}, bus.CollectConfig{Size: 100, Timeout: time.Second}))
	c := mover(t, b)
	for round := range 2 {
		first, err := moves.Publish(testkit.Context(t), c, move{"a", round})
		if err != nil {
			t.Fatal(err)
		}
		s := <-got
		if s.Why != bus.WhyTimeout || s.Complete() || s.Key != "a" || len(s.Events) != 1 || s.Events[0].ID != first || s.Events[0].Value.N != round {
			t.Errorf("set %d is %+v", round, s)
		}
	}
	doneWith(t, b)
}

// A set that fails is one dead letter with all its events, and is handled as the same set when it comes back.
func TestASetThatFailsIsParkedWholeAndComesBack(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	var well atomic.Bool
	got := make(chan bus.Set[move], 10)
	start(t, newCollect(t, dial(t, b, orderedGrant()), func(_ context.Context, s bus.Set[move], _ *bus.Out) error {
		if !well.Load() {
			return errors.New("not today")
		}
		got <- s
		return nil
	}, bus.CollectConfig{Size: 3, Timeout: 24 * time.Hour, Stage: bus.StageConfig{Backoff: quick}}))
	c := mover(t, b)
	play(t, c, 1, 3)
	raw := bus.NewTopic[json.RawMessage](keyed)
	if _, err := raw.Publish(testkit.Context(t), c, json.RawMessage(`{"key":"key-0","n":"no number"}`)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { return len(stored(t, b, wire.DeadStream)) == 2 }, "the set and the event that is none are parked")
	var letter storedEvent
	for _, e := range stored(t, b, wire.DeadStream) {
		if e.msg.Headers().Get(wire.HeaderCode) == bus.CodeHandler {
			letter = e
		}
	}
	well.Store(true)
	source := letter.msg.Headers().Get(wire.HeaderSource)
	id, err := wire.ParseEventID(source)
	if err != nil {
		t.Fatalf("the letter is of %q: %v", source, err)
	}
	if _, err := b.JS.PublishMsg(testkit.Context(t), &nats.Msg{ // as hozo dlq retry does
		Subject: wire.RetrySubject("mover", id), Data: letter.data, Header: nats.Header{
			wire.HeaderSubject: {keyed}, wire.HeaderContentType: {letter.msg.Headers().Get(wire.HeaderContentType)},
		},
	}); err != nil {
		t.Fatal(err)
	}
	s := <-got
	if s.Why != bus.WhySize || len(s.Events) != 3 || s.Events[0].ID != id || s.Events[2].Value.N != 2 || s.Key != "key-0" {
		t.Errorf("%+v came back", s)
	}
}

func TestCollectSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	unordered := dial(t, b, wire.Grant{Service: "other", Consumes: []wire.Source{{Stream: "plain"}}})
	_, err := bus.NewCollect(unordered, bus.NewTopic[move]("plain"), join, bus.CollectConfig{Size: 2, Timeout: time.Second})
	if fault.Code(err) != bus.CodeCollect {
		t.Errorf("a stream without a key: %v", err)
	}
	c := dial(t, b, orderedGrant())
	for name, cfg := range map[string]bus.CollectConfig{
		"no timeout": {Size: 2}, "too many": {Size: 5000, Timeout: time.Second}, "negative": {Size: -1, Timeout: time.Second},
		"negative bytes": {Timeout: time.Second, MaxBytes: -1},
	} {
		if _, err := bus.NewCollect(c, moves, join, cfg); fault.Code(err) != bus.CodeCollect {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const drillSize = 5

// runJoiner is one instance of a service that collects, in a process of its own.
func runJoiner() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := bus.FromEnv(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err == nil {
		var s *bus.Stage
		if s, err = bus.NewCollect(c, moves, join, bus.CollectConfig{Size: drillSize, Timeout: 3 * time.Second, Stage: bus.StageConfig{Workers: 2}}); err == nil {
			err = s.Run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "joiner:", err)
		os.Exit(1)
	}
}

// Instances that collect are killed while events come: each event is in one set that is stored once, in order.
func TestSetsSurviveTheirProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	t.Parallel()
	const instances, keys, n = 3, 60, 47
	d := newDrill(t, instances)
	d.program = "joiner"
	for range instances {
		d.start()
	}
	c := mover(t, d.b)
	var sent atomic.Int64
	var players sync.WaitGroup
	for k := range keys {
		players.Go(func() {
			for i := range n {
				if _, err := moves.Publish(testkit.Context(t), c, move{fmt.Sprintf("key-%d", k), i}); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				sent.Add(1)
			}
		})
	}
	for round := range 6 {
		at := int64(keys * n * (round + 1) / 8)
		testkit.Eventually(t, func() bool { return sent.Load() >= at || t.Failed() }, "events are sent")
		i := d.any()
		d.alive[i].Kill(t)
		delete(d.alive, i)
		if rand.IntN(2) == 0 && len(d.alive) > 0 {
			i = d.any()
			d.alive[i].Kill(t)
			delete(d.alive, i)
		}
		for len(d.alive) < instances {
			d.start()
		}
	}
	players.Wait()
	doneWith(t, d.b) // the last sets have expired
	next := make(map[string]int)
	complete := 0
	for _, j := range joinedSets(t, d.b) {
		if len(j.N) > drillSize || (j.Why == bus.WhySize) != (len(j.N) == drillSize) || j.Why == bus.WhyFull {
			t.Errorf("set %+v", j)
		}
		if j.Why == bus.WhySize {
			complete++
		}
		for _, got := range j.N {
			if got != next[j.Key] {
				t.Errorf("%s: move %d came when %d was next", j.Key, got, next[j.Key])
			}
			next[j.Key] = got + 1
		}
	}
	for k := range keys {
		if got := next[fmt.Sprintf("key-%d", k)]; got != n {
			t.Errorf("key-%d has come to move %d of %d", k, got, n)
		}
	}
	if complete == 0 {
		t.Error("no set is complete")
	}
	t.Logf("%d sets, %d of them complete", len(joinedSets(t, d.b)), complete)
}
