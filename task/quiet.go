package task

import (
	"sync"
	"time"
)

// quietInterval is short enough to see a new problem and long enough that a million failures do not fill a disk.
const quietInterval = 10 * time.Second

// quiet lets one log line through in an interval and counts the others. The zero quiet is ready; it is safe for
// concurrent use.
type quiet struct {
	mu      sync.Mutex
	last    time.Time
	dropped int
}

// pass reports whether to log now, and how many lines were left out since the last one.
func (q *quiet) pass() (now bool, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.last) < quietInterval {
		q.dropped++
		return false, 0
	}
	dropped = q.dropped
	q.last, q.dropped = time.Now(), 0
	return true, dropped
}
