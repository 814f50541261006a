package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

func TestTheOneSlowReaderAmongTenIsNamed(t *testing.T) {
	t.Parallel()
	var r slowReaders
	now := time.Now()
	began := now
	look := func(after time.Duration, slow, catching uint64) []status.Problem {
		now = now.Add(after)
		stream := status.Stream{Name: "orders", Consumers: []status.Consumer{{Service: "late", Lag: slow}, {Service: "catching", Lag: catching}}}
		for i := range 8 {
			stream.Consumers = append(stream.Consumers, status.Consumer{Service: fmt.Sprintf("quick%d", i), InFlight: 3})
		}
		return r.look(now, []status.Stream{stream})
	}
	if got := look(0, 100, 900); len(got) != 0 {
		t.Errorf("one look names %+v", got)
	}
	if got := look(200*time.Millisecond, 101, 890); len(got) != 0 {
		t.Errorf("two looks in a moment name %+v", got)
	}
	got := look(2*time.Second, 140, 500)
	if len(got) != 1 || got[0].Code != "reader/slow" || got[0].Service != "late" || !got[0].Since.Equal(began) {
		t.Fatalf("after two seconds the slow reader is named as %+v", got)
	}
	if now.Sub(began) > 5*time.Second {
		t.Errorf("it took %v", now.Sub(began))
	}
	if got := look(2*time.Second, 140, 100); len(got) != 1 || !got[0].Since.Equal(began) {
		t.Errorf("a reader that stands still is named as %+v", got)
	}
	if got := look(2*time.Second, 60, 0); len(got) != 0 {
		t.Errorf("a reader that catches up is named: %+v", got)
	}
	if got := look(2*time.Second, 5, 0); len(got) != 0 {
		t.Errorf("a reader with nothing to speak of is named: %+v", got)
	}
}

func TestDroppedOldestIsTheFirstSequence(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		full        string
		first, want uint64
	}{{"drop_oldest", 41, 40}, {"drop_oldest", 0, 0}, {"block", 41, 0}} {
		if got := droppedOldest(streamWith(c.full), c.first); got != c.want {
			t.Errorf("full: %s and first sequence %d give %d dropped, want %d", c.full, c.first, got, c.want)
		}
	}
}
