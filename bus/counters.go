package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// reportInterval is how often an instance says what it does; wire.Report promises one second.
const reportInterval = time.Second

// Counters are the totals of one process since its start. Safe for concurrent use.
type Counters struct {
	EventsIn atomic.Uint64 // events taken and done with: handled, parked or dropped
	BytesIn  atomic.Uint64 // their bytes, uncompressed
	Parked   atomic.Uint64
	Retried  atomic.Uint64 // tries after the first
	Dropped  atomic.Uint64 // events that a handler dropped
	Tasks    atomic.Uint64
	Failed   atomic.Uint64 // live events whose handler returned an error

	requests gauge // HTTP requests in flight

	overflowMu sync.Mutex
	overflow   map[string]*overflowCount // of watches, by topic

	edges edgeCounts

	live liveCounts // events out by Topic.Publish on live subjects

	outMu     sync.Mutex
	eventsOut uint64
	bytesOut  uint64
	routes    map[string]uint64
	fullDrops map[string]uint64 // events, by subject: their streams were full

	busyMu    sync.Mutex
	external  int       // workers announced by SetWorkers
	own       int       // workers of Stages and Servers
	working   int       // of them, how many work now
	fullSince time.Time // when the last idle one began to work; zero while one is idle
	full      time.Duration
}

// AddOut counts events published to subject, or stored by a sink under the name of its target; bytes uncompressed.
func (c *Counters) AddOut(subject string, events, bytes uint64) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	c.eventsOut += events
	c.bytesOut += bytes
	if c.routes == nil {
		c.routes = make(map[string]uint64)
	}
	c.routes[subject] += events
}

// SetWorkers tells how many workers this process has outside Stages and Servers, which count themselves. It replaces
// the number of an earlier call.
func (c *Counters) SetWorkers(n int) {
	c.busyMu.Lock()
	defer c.busyMu.Unlock()
	c.external = n
	c.noteFullLocked()
}

// Working marks one worker busy until done is called. The share of time in which every worker is busy is the Busy of
// the reports.
func (c *Counters) Working() (done func()) {
	c.work(1)
	return func() { c.work(-1) }
}

// addWorkers counts n more workers of this package, or fewer.
func (c *Counters) addWorkers(n int) {
	c.busyMu.Lock()
	defer c.busyMu.Unlock()
	c.own += n
	c.noteFullLocked()
}

func (c *Counters) work(n int) {
	c.busyMu.Lock()
	defer c.busyMu.Unlock()
	c.working += n
	c.noteFullLocked()
}

// noteFullLocked keeps the time in which no worker was idle.
func (c *Counters) noteFullLocked() {
	isFull := c.working > 0 && c.working >= c.external+c.own
	switch {
	case isFull && c.fullSince.IsZero():
		c.fullSince = time.Now()
	case !isFull && !c.fullSince.IsZero():
		c.full += time.Since(c.fullSince)
		c.fullSince = time.Time{}
	}
}

// fullTime is the time so far in which every worker was busy.
func (c *Counters) fullTime() time.Duration {
	c.busyMu.Lock()
	defer c.busyMu.Unlock()
	if c.fullSince.IsZero() {
		return c.full
	}
	return c.full + time.Since(c.fullSince)
}

// report fills in everything that the counters know.
func (c *Counters) report() wire.Report {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	r := wire.Report{
		EventsIn: c.EventsIn.Load(), BytesIn: c.BytesIn.Load(), EventsOut: c.eventsOut, BytesOut: c.bytesOut,
		Parked: c.Parked.Load(), Retried: c.Retried.Load(), Tasks: c.Tasks.Load(), Routes: maps.Clone(c.routes),
		Overflow: c.fullDropsLocked(c.overflows()), Failed: c.Failed.Load(),
	}
	c.live.addTo(&r)
	r.Edges = c.edges.all()
	return r
}

// RunReports publishes a wire.Report each second on hozo.report.<service>.<instance>, and a last one when ctx ends. A
// report that cannot be sent is left out: the next one holds its totals too.
func (c *Conn) RunReports(ctx context.Context) error {
	g := c.cfg.Grant
	subject := fmt.Sprintf("%s.%s.%d", wire.ReportSubject, g.Service, g.Instance)
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	last, lastFull, lastRequests := time.Now(), c.counters.fullTime(), c.counters.requests.total()
	send := func() error {
		now, full, requests := time.Now(), c.counters.fullTime(), c.counters.requests.total()
		r := c.counters.report()
		r.Service, r.Instance, r.Run, r.Time = g.Service, g.Instance, c.cfg.Run, now
		if span := now.Sub(last); span > 0 {
			r.Busy = min(1, max(0, float64(full-lastFull)/float64(span)))
			r.InFlight = max(0, float64(requests-lastRequests)/float64(span))
		}
		last, lastFull, lastRequests = now, full, requests
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		if c.nc.IsConnected() {
			_ = c.nc.Publish(subject, data) // best effort: see above
		}
		return nil
	}
	for {
		select {
		case <-tick.C:
			if err := send(); err != nil {
				return err
			}
		case <-ctx.Done():
			return send()
		}
	}
}
