package bus

import "time"

// FullTime shows what Busy is made from.
func FullTime(c *Counters) time.Duration { return c.fullTime() }
