package node

import (
	"testing"

	"github.com/hozo-dev/hozo/wire"
)

// While one process replaces another both report under one instance, in turn.
func TestTwoProcessesOfOneInstanceAreCountedOnce(t *testing.T) {
	t.Parallel()
	totals := newTotals()
	report := func(run string, events uint64, inFlight float64) {
		totals.add(wire.Report{Service: "a", Instance: 1, Run: run, EventsIn: events, InFlight: inFlight})
	}
	for i := range uint64(5) {
		report("old", 100+i, 2)
		report("new", i, 3)
	}
	if sum := totals.of("a"); sum.EventsIn != 104+4 || sum.InFlight != 5 || sum.Reporting != 2 {
		t.Errorf("%+v", sum)
	}
	for _, run := range []string{"3", "4", "5", "6", "7"} {
		report(run, 10, 0)
	}
	if sum := totals.of("a"); sum.EventsIn != 104+4+50 {
		t.Errorf("after more runs: %+v", sum)
	}
}
