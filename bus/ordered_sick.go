package bus

import "time"

const (
	// mostSick bounds the keys that a partition remembers as failing.
	mostSick = 1024

	// sickTime is how long a key counts as failing after its last event that was parked.
	sickTime = 30 * time.Second
)

// sickKeys are the keys of a partition of which an event was parked lately. When the next one of such a key fails, it is
// parked at once: a key that always fails costs its neighbours one call an event, and no pauses. Not safe for concurrent
// use; a nil one knows no keys.
type sickKeys struct {
	keyOf func(event []byte) string
	since map[string]time.Time
}

func newSickKeys(keyOf func([]byte) string) *sickKeys {
	return &sickKeys{keyOf, make(map[string]time.Time)}
}

func (s *sickKeys) has(event []byte) bool {
	if s == nil || len(s.since) == 0 {
		return false
	}
	at, ok := s.since[s.keyOf(event)]
	return ok && time.Since(at) < sickTime
}

func (s *sickKeys) add(event []byte) {
	if s == nil {
		return
	}
	if len(s.since) >= mostSick {
		clear(s.since)
	}
	s.since[s.keyOf(event)] = time.Now()
}
