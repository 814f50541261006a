package bus

import (
	"slices"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"
)

// A buffer never holds more than its bounds, and every message that was put is taken, waits or was counted as dropped.
func TestInboxKeepsItsBoundsAndCountsEveryDrop(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SampledFrom([]Policy{DropOldest, DropNewest, Fail, Block}).Draw(t, "policy")
		maxEvents := rapid.IntRange(1, 200).Draw(t, "events")
		maxBytes := rapid.IntRange(1, 1000).Draw(t, "bytes")
		box := newInbox(policy, maxEvents, maxBytes)
		var model []*nats.Msg // what must wait, in order
		var dropped uint64
		waiting := func() int {
			sum := 0
			for _, m := range model {
				sum += len(m.Data)
			}
			return sum
		}
		for i := range rapid.IntRange(1, 400).Draw(t, "steps") {
			if len(model) > 0 && rapid.IntRange(0, 3).Draw(t, "take") == 0 {
				into := make([]*nats.Msg, rapid.IntRange(1, 10).Draw(t, "batch"))
				n := box.take(into)
				if want := min(len(into), len(model)); n != want || !slices.Equal(into[:n], model[:n]) {
					t.Fatalf("took %d messages, want the first %d of %d", n, want, len(model))
				}
				model = model[n:]
				continue
			}
			m := &nats.Msg{Subject: strconv.Itoa(i), Data: make([]byte, rapid.IntRange(0, 300).Draw(t, "size"))}
			full := func() bool {
				return len(model) > 0 && (len(model) >= maxEvents || waiting()+len(m.Data) > maxBytes)
			}
			fits := !full() || policy == Block
			if ok := box.put(m); ok != (fits || policy != Fail) {
				t.Fatalf("put says %v with %d waiting", ok, len(model))
			}
			switch {
			case fits:
				model = append(model, m)
			case policy == DropOldest:
				for full() {
					model = model[1:]
					dropped++
				}
				model = append(model, m)
			default:
				dropped++
			}
			if box.n != len(model) || box.bytes != waiting() || box.lost() != dropped {
				t.Fatalf("holds %d messages of %d bytes and has dropped %d, want %d, %d, %d", box.n, box.bytes, box.lost(), len(model), waiting(), dropped)
			}
		}
		box.close()
		for n := 1; n > 0; {
			n = box.take(make([]*nats.Msg, 7))
			model = model[n:]
		}
		if len(model) != 0 {
			t.Fatalf("%d messages were not given out after close", len(model))
		}
	})
}

// What has ended and what runs is one sum.
func TestOverflowOfAWatchThatEndedStaysInTheReports(t *testing.T) {
	t.Parallel()
	var c Counters
	if got := c.overflows(); got != nil {
		t.Errorf("overflows of nothing: %v", got)
	}
	first := c.countOverflow("prices", func() uint64 { return 3 })
	c.countOverflow("prices", func() uint64 { return 4 })
	c.countOverflow("quiet", func() uint64 { return 0 })
	first()
	if got := c.report().Overflow; len(got) != 1 || got["prices"] != 7 {
		t.Errorf("overflows are %v", got)
	}
}
