package broker

import (
	"slices"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// costSamples is how many syncs the figures of a stream are made of: some seconds of a busy one.
const costSamples = 1024

// syncCost keeps what the syncs of one stream cost. It is for one goroutine at a time.
type syncCost struct {
	syncs, commits uint64
	took           []time.Duration // a ring
	ended          []time.Time     // of the same syncs
	served         []int           // requests answered by them
}

// add notes a sync that answered n requests.
func (c *syncCost) add(took time.Duration, ended time.Time, n int) {
	at := int(c.syncs % costSamples)
	c.syncs++
	c.commits += uint64(n)
	if len(c.took) < costSamples {
		c.took, c.ended, c.served = append(c.took, took), append(c.ended, ended), append(c.served, n)
		return
	}
	c.took[at], c.ended[at], c.served[at] = took, ended, n
}

// report sums up as of now.
func (c *syncCost) report(stream string, now time.Time) wire.SyncCost {
	r := wire.SyncCost{Stream: stream, Syncs: c.syncs, Commits: c.commits}
	if len(c.took) == 0 {
		return r
	}
	sorted := slices.Clone(c.took)
	slices.Sort(sorted)
	r.P50, r.P99 = sorted[len(sorted)/2], sorted[len(sorted)*99/100]
	first, served := now, 0
	for i, ended := range c.ended {
		if now.Sub(ended) > time.Minute {
			continue // a rate of long ago says nothing of now
		}
		served += c.served[i]
		if ended.Before(first) {
			first = ended
		}
	}
	if span := now.Sub(first); span > 0 {
		r.PerSecond = float64(served) / max(span.Seconds(), 1)
	}
	return r
}
