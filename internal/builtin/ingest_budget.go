package builtin

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// rateWindow is over what time the drain rate is taken: the shortest Retry-After.
	rateWindow = time.Second

	// longestRetryAfter bounds what a client is told: a service whose rate just fell to nothing may be back in seconds.
	longestRetryAfter = 30 * time.Second
)

// budget bounds the bytes of all requests in hand and knows how fast they leave. Safe for concurrent use.
type budget struct {
	limit int64

	mu     sync.Mutex
	used   int64
	given  int64 // since begun
	begun  time.Time
	rate   float64 // bytes a second, moving mean
	opened bool    // rate holds a measurement
}

func newBudget(limit int64) *budget { return &budget{limit: limit, begun: time.Now()} }

// take reserves n bytes, or none when they are not there.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.limit {
		return false
	}
	b.used += n
	return true
}

// give returns n bytes.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.given += n
	b.measureLocked(time.Now())
}

func (b *budget) measureLocked(now time.Time) {
	elapsed := now.Sub(b.begun)
	if elapsed < rateWindow {
		return
	}
	rate := float64(b.given) / elapsed.Seconds()
	if b.opened {
		rate = (b.rate + rate) / 2
	}
	b.rate, b.opened, b.given, b.begun = rate, true, 0, now
}

// retryAfter is when half of the budget should be free again, with some spread so that refused clients do not come back
// all at once.
func (b *budget) retryAfter() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.measureLocked(time.Now())
	excess := float64(b.used - b.limit/2)
	if excess <= 0 {
		return spread(time.Second)
	}
	if b.rate <= 0 {
		return spread(longestRetryAfter / 6) // nothing measured, or all stands still
	}
	return spread(time.Duration(excess / b.rate * float64(time.Second)))
}

// spread varies d by a fifth up or down and rounds it up to whole seconds, from 1 s to longestRetryAfter.
func spread(d time.Duration) time.Duration {
	d = min(d, longestRetryAfter)
	varied := d.Seconds() * (0.8 + 0.4*rand.Float64())
	return time.Duration(max(1, math.Ceil(varied))) * time.Second
}
