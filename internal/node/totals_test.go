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

// A watch that drops is named while it does, with everything that its instance has dropped.
func TestASlowWatchIsNamed(t *testing.T) {
	t.Parallel()
	totals := newTotals()
	report := func(instance int, run string, dropped uint64) {
		totals.add(wire.Report{Service: "a", Instance: instance, Run: run, Overflow: map[string]uint64{"prices": dropped}})
	}
	if all := totals.overflows(); len(all) != 0 {
		t.Errorf("problems without a report: %v", all)
	}
	report(1, "old", 0)
	report(2, "one", 7)
	report(2, "two", 5)
	all := totals.overflows()
	if len(all) != 1 || all[0].Service != "a" || all[0].Code != "watch/overflow" ||
		all[0].Title != "a.2 is too slow for prices and has dropped 12 live events of it" {
		t.Errorf("%+v", all)
	}
	if sum := totals.of("a"); sum.Overflow["prices"] != 12 {
		t.Errorf("%+v", sum)
	}
}
