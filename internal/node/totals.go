package node

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/wire"
)

const reportSubjects = wire.ReportSubject + ".>"

// reportStale is how long after its last report an instance counts as not busy: three reports may be missed.
const reportStale = 3 * time.Second

// mostRuns is how many runs of one instance are told apart. Two report at the same time while one replaces the other;
// an earlier one has sent its last report by then.
const mostRuns = 4

// totals sums the reports of all instances. Counters start over with each run of an instance, so the last report of
// every earlier run is kept.
type totals struct {
	mu        sync.Mutex
	instances map[instanceKey]*instanceTotal
}

type instanceKey struct {
	service  string
	instance int
}

type instanceTotal struct {
	overflowed map[string]time.Time // when a watch last dropped something, by topic
	ended      status.Traffic       // runs before those below
	runs       []runTotal           // the one heard of last at the end
}

type runTotal struct {
	latest wire.Report
	seen   time.Time
	rates  map[string]float64 // events a second per edge, between the last two reports
}

func newTotals() *totals { return &totals{instances: map[instanceKey]*instanceTotal{}} }

func (t *totals) receive(msg *nats.Msg) {
	var r wire.Report
	if err := json.Unmarshal(msg.Data, &r); err != nil {
		return // a report of a newer version; its service still runs
	}
	t.add(r)
}

func (t *totals) add(r wire.Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := instanceKey{r.Service, r.Instance}
	total := t.instances[key]
	if total == nil {
		total = &instanceTotal{}
		t.instances[key] = total
	}
	var before wire.Report
	for _, old := range total.runs {
		if old.latest.Run == r.Run {
			before = old.latest
		}
	}
	for topic, n := range r.Overflow {
		if n > before.Overflow[topic] {
			if total.overflowed == nil {
				total.overflowed = map[string]time.Time{}
			}
			total.overflowed[topic] = time.Now()
		}
	}
	total.runs = slices.DeleteFunc(total.runs, func(old runTotal) bool { return old.latest.Run == r.Run })
	if len(total.runs) == mostRuns {
		addTraffic(&total.ended, total.runs[0].latest)
		total.runs = total.runs[1:]
	}
	total.runs = append(total.runs, runTotal{r, time.Now(), edgeRates(before, r)})
}

// of returns the traffic of a service.
func (t *totals) of(service string) status.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	var sum status.Traffic
	live := 0
	for key, total := range t.instances {
		if key.service != service {
			continue
		}
		merge(&sum, total.ended)
		for _, run := range total.runs {
			addTraffic(&sum, run.latest)
			if time.Since(run.seen) < reportStale {
				sum.Busy += run.latest.Busy
				sum.InFlight += run.latest.InFlight
				addRates(&sum, run.rates)
				live++
			}
		}
	}
	if live > 0 {
		sum.Busy /= float64(live)
	}
	sum.Reporting = live
	return sum
}

func addTraffic(sum *status.Traffic, r wire.Report) {
	merge(sum, status.Traffic{
		EventsIn: r.EventsIn, BytesIn: r.BytesIn, EventsOut: r.EventsOut, BytesOut: r.BytesOut, Parked: r.Parked, Tasks: r.Tasks, Routes: r.Routes, Overflow: r.Overflow, Edges: edgesOf(r),
	})
}

func merge(sum *status.Traffic, more status.Traffic) {
	sum.EventsIn += more.EventsIn
	sum.BytesIn += more.BytesIn
	sum.EventsOut += more.EventsOut
	sum.BytesOut += more.BytesOut
	sum.Parked += more.Parked
	sum.Tasks += more.Tasks
	sum.Routes = added(sum.Routes, more.Routes)
	sum.Edges = addedEdges(sum.Edges, more.Edges)
	sum.Overflow = added(sum.Overflow, more.Overflow)
}

// added returns the sums of two maps and changes neither.
func added(a, b map[string]uint64) map[string]uint64 {
	if len(b) == 0 {
		return a
	}
	sums := maps.Clone(a)
	if sums == nil {
		sums = map[string]uint64{}
	}
	for subject, n := range b {
		sums[subject] += n
	}
	return sums
}
