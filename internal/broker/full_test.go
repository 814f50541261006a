package broker_test

import (
	"testing"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestDropOldestTakesEverythingAndItsFirstSequenceCounts(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "prices", MaxBytes: 64 << 10, DropOld: true})
	const all = 500
	publishAll(t, b.JS, "prices", all, 1000)
	state := streamState(t, b.JS, "prices")
	if state.LastSeq != all || state.Bytes > 64<<10 {
		t.Errorf("the stream ends at %d of %d with %d bytes", state.LastSeq, all, state.Bytes)
	}
	if dropped := state.FirstSeq - 1; dropped == 0 || dropped+state.Msgs != all {
		t.Errorf("of %d messages %d are stored and %d dropped by the first sequence", all, state.Msgs, dropped)
	}
	if n, err := broker.Trim(testkit.Context(t), b.JS, b.Layout()); n != 0 || err != nil {
		t.Errorf("trimming took %d messages, %v: the count would not be that of drops", n, err)
	}
}
