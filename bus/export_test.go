package bus

import (
	"maps"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// FullTime shows what Busy is made from.
func FullTime(c *Counters) time.Duration { return c.fullTime() }

// Edge is what AddEdge has counted.
func (c *Counters) Edge(word, name string) uint64 { return c.edges.all()[wire.EdgeKey(word, name)] }

// Dropping is what was dropped because streams were full, by subject.
func (c *Counters) Dropping() map[string]uint64 {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return c.fullDropsLocked(nil)
}

// Sending is what was stored, by subject.
func (c *Counters) Sending() map[string]uint64 {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return maps.Clone(c.routes)
}
