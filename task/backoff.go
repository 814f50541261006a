package task

import (
	"math/rand/v2"
	"time"
)

// delay is how long a task waits after its attempt number n, from 1, has failed: between half the full backoff and all
// of it, so that tasks that failed together do not come back together.
func (c Config) delay(n int) time.Duration {
	full := c.Backoff
	for ; n > 1 && full < c.MaxBackoff; n-- {
		full *= 2
	}
	full = min(full, c.MaxBackoff)
	return full/2 + rand.N(full/2+1)
}
