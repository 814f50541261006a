package bus

import (
	"sync"
	"time"
)

// gauge counts what goes on now and keeps its sum over time, so that a report once a second can tell how much went on
// meanwhile and not only at that moment. The zero gauge is ready.
type gauge struct {
	mu   sync.Mutex
	n    int
	sum  time.Duration // of the time of each one so far
	last time.Time     // when sum was up to date
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.advanceLocked(time.Now())
	g.n += n
}

func (g *gauge) advanceLocked(now time.Time) {
	if g.n > 0 {
		g.sum += time.Duration(g.n) * now.Sub(g.last)
	}
	g.last = now
}

func (g *gauge) total() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.advanceLocked(time.Now())
	return g.sum
}

// Request counts one HTTP request as in flight until done is called.
func (c *Counters) Request() (done func()) {
	c.requests.add(1)
	return func() { c.requests.add(-1) }
}
