package node

import (
	"maps"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/wire"
)

// edgeCounts are all the edges that a report counts, those on which the service publishes among them.
func edgeCounts(r wire.Report) map[string]uint64 {
	counts := maps.Clone(r.Edges)
	if counts == nil {
		counts = map[string]uint64{}
	}
	for subject, n := range r.Routes {
		counts[wire.EdgeKey("publishes", subject)] = n
	}
	return counts
}

func edgesOf(r wire.Report) map[string]status.Edge {
	edges := map[string]status.Edge{}
	for key, n := range edgeCounts(r) {
		edges[key] = status.Edge{Events: n}
	}
	return edges
}

// edgeRates are the events a second on each edge between two reports of one run.
func edgeRates(before, now wire.Report) map[string]float64 {
	seconds := now.Time.Sub(before.Time).Seconds()
	if before.Time.IsZero() || seconds <= 0 {
		return nil // the first, or a clock that was set back
	}
	old, rates := edgeCounts(before), map[string]float64{}
	for key, n := range edgeCounts(now) {
		rates[key] = float64(n-min(old[key], n)) / seconds
	}
	return rates
}

// addedEdges returns the sums of two maps and changes neither.
func addedEdges(a, b map[string]status.Edge) map[string]status.Edge {
	if len(b) == 0 {
		return a
	}
	sums := maps.Clone(a)
	if sums == nil {
		sums = map[string]status.Edge{}
	}
	for key, e := range b {
		sums[key] = status.Edge{Events: sums[key].Events + e.Events, PerSecond: sums[key].PerSecond + e.PerSecond}
	}
	return sums
}

func addRates(sum *status.Traffic, rates map[string]float64) {
	for key, rate := range rates {
		e := sum.Edges[key] // the run's counts are there already
		e.PerSecond += rate
		sum.Edges[key] = e
	}
}
