package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/wire"
)

// Counts of edges are summed over instances and restarts, rates over the runs that report.
func TestEdgesHaveCountsAndRates(t *testing.T) {
	t.Parallel()
	totals, began := newTotals(), time.Now()
	report := func(instance int, run string, at time.Duration, sent, read uint64) {
		totals.add(wire.Report{
			Service: "a", Instance: instance, Run: run, Time: began.Add(at),
			Routes: map[string]uint64{"out": sent}, Edges: map[string]uint64{wire.EdgeKey("consumes", "in"): read},
		})
	}
	report(1, "x", 0, 10, 100)
	if got := totals.of("a").Edges["consumes in"]; got != (status.Edge{Events: 100}) {
		t.Errorf("after one report: %+v", got)
	}
	report(1, "x", time.Second, 20, 300)
	report(2, "y", 0, 1, 1)
	report(2, "y", 2*time.Second, 5, 101)
	report(1, "z", 3*time.Second, 7, 7) // a new run, whose first report has no rate
	want := map[string]status.Edge{"publishes out": {Events: 32, PerSecond: 10 + 2}, "consumes in": {Events: 408, PerSecond: 200 + 50}}
	if diff := cmp.Diff(want, totals.of("a").Edges); diff != "" {
		t.Error(diff)
	}
	if got := totals.of("a").Edges; len(got) != 2 || got["consumes in"].PerSecond != 250 {
		t.Errorf("a second look changes what it sees: %+v", got)
	}
}
