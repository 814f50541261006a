package builtin

import (
	"sync"
	"time"
)

// awayClock knows since when the broker has been away. The zero awayClock is ready; it is safe for concurrent use.
type awayClock struct {
	mu    sync.Mutex
	since time.Time
}

// tooLong notes whether the broker is connected now and reports whether it has been away for longer than a request
// would wait. Then the body need not be read.
func (a *awayClock) tooLong(connected bool, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case connected:
		a.since = time.Time{}
	case a.since.IsZero():
		a.since = now
	default:
		return now.Sub(a.since) > storePatience
	}
	return false
}
