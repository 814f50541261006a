package bus

import "time"

// FullTime shows what Busy is made from.
func FullTime(c *Counters) time.Duration { return c.fullTime() }

// Dropping is what was dropped because streams were full, by subject.
func (c *Counters) Dropping() map[string]uint64 {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return c.fullDropsLocked(nil)
}
