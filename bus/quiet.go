package bus

import (
	"sync"
	"time"
)

// quiet lets one log line through in an interval and counts the others. Safe for concurrent use.
type quiet struct {
	mu      sync.Mutex
	last    time.Time
	dropped int
}

// quietInterval is short enough to see a new problem and long enough that a million panics do not fill a disk.
const quietInterval = 10 * time.Second

// pass reports whether to log now, and how many lines were left out since the last one.
func (q *quiet) pass() (bool, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.last) < quietInterval {
		q.dropped++
		return false, 0
	}
	dropped := q.dropped
	q.last, q.dropped = time.Now(), 0
	return true, dropped
}
