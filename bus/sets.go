package bus

import (
	"sync"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// rawSet is a Set before its events have a type.
type rawSet struct {
	key      string
	why      string // why it was closed; "" while it is open
	events   []rawSetEvent
	bytes    int
	deadline time.Time // of the stream's time
}

// rawSetEvent is one event of a set. Nothing of it belongs to a frame.
type rawSetEvent struct {
	id      wire.EventID
	subject string
	time    time.Time
	data    []byte
	content string
	trace   wire.Trace
}

// setEventBytes is what an event counts beside its data.
const setEventBytes = 128

func (e rawSetEvent) size() int { return len(e.data) + setEventBytes }

// setLimits says when sets of one partition are closed.
type setLimits struct {
	size     int           // events of a set; 0: no such bound
	timeout  time.Duration // from a set's first event
	setBytes int           // of one set
	events   int           // of all open sets
	bytes    int           // and theirs
}

// sets are the sets of one partition: those that are open, and those that are closed but not yet handled. What becomes
// of an event depends on nothing but the events before it and on the moments at which expire is called, and the
// snapshots say what came of those. So whoever reads the partition again behind a snapshot goes on exactly there.
type sets struct {
	limits setLimits

	mu      sync.Mutex
	stream  string
	read    uint64 // everything up to here is in a set, or was
	open    map[string]*rawSet
	oldest  []*rawSet // open ones by age, and some that are closed by now
	closed  []*rawSet // to be handled, in order
	events  int       // in open sets
	bytes   int
	again   map[setRef]int // events to be read again: 0 for an open set, else 1 + the place in closed
	restore setState       // as long as that is so
}

func newSets(stream string, limits setLimits) *sets {
	return &sets{limits: limits, stream: stream, open: make(map[string]*rawSet)}
}

// skip reports whether an event was dealt with before the snapshot that the sets were made from.
func (s *sets) skip(ref setRef) bool {
	if ref.seq > s.read {
		return false
	}
	_, again := s.again[ref]
	return !again
}

// add puts an event into the set of its key, which may close sets. The event must not be one to skip.
func (s *sets) add(key string, e rawSetEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := setRef{e.id.Seq, e.id.Index}
	if place, ok := s.again[ref]; ok && ref.seq <= s.read {
		delete(s.again, ref)
		if place == 0 {
			s.putLocked(key, e)
			return
		}
		set := s.closed[place-1]
		set.key, set.events = key, append(set.events, e)
		return
	}
	if set := s.open[key]; set != nil && set.bytes+e.size() > s.limits.setBytes {
		s.closeLocked(set, WhyFull)
	}
	set := s.putLocked(key, e)
	if len(set.events) == s.limits.size {
		s.closeLocked(set, WhySize)
	}
	for len(s.open) > 0 && (s.events > s.limits.events || s.bytes > s.limits.bytes) {
		s.closeLocked(s.firstLocked(), WhyFull)
	}
}

func (s *sets) putLocked(key string, e rawSetEvent) *rawSet {
	set := s.open[key]
	if set == nil {
		set = &rawSet{key: key, deadline: e.time.Add(s.limits.timeout)}
		s.open[key] = set
		s.oldest = append(s.oldest, set)
	}
	set.events = append(set.events, e)
	set.bytes += e.size()
	s.events++
	s.bytes += e.size()
	return set
}

func (s *sets) closeLocked(set *rawSet, why string) {
	set.why = why
	delete(s.open, set.key)
	s.events -= len(set.events)
	s.bytes -= set.bytes
	s.closed = append(s.closed, set)
}

// firstLocked returns the oldest open set, or nil.
func (s *sets) firstLocked() *rawSet {
	for len(s.oldest) > 0 && s.oldest[0].why != "" {
		s.oldest[0] = nil
		s.oldest = s.oldest[1:]
	}
	if len(s.oldest) == 0 {
		return nil
	}
	return s.oldest[0]
}

// expire closes the sets whose time is over at now, a time of the stream.
func (s *sets) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for set := s.firstLocked(); set != nil && !set.deadline.After(now); set = s.firstLocked() {
		s.closeLocked(set, WhyTimeout)
	}
}

// deadline is when the next open set expires; ok is false when there is none.
func (s *sets) deadline() (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.firstLocked(); set != nil {
		return set.deadline, true
	}
	return time.Time{}, false
}

// advance notes that every event up to the end of frame seq was added.
func (s *sets) advance(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = max(s.read, seq)
}

// replaying reports whether events that a snapshot names are still to be read again.
func (s *sets) replaying() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again != nil
}

// replayed says that everything which the snapshot names was read again, or is in the stream no more.
func (s *sets) replayed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.again == nil {
		return
	}
	s.again, s.restore = nil, setState{}
	left := s.closed[:0]
	for _, set := range s.closed {
		if len(set.events) > 0 {
			left = append(left, set)
		}
	}
	clear(s.closed[len(left):])
	s.closed = left
	for _, set := range s.oldest {
		if set.why == "" && s.limits.size > 0 && len(set.events) >= s.limits.size { // the number has changed
			s.closeLocked(set, WhySize)
		}
	}
}

// next returns the first closed set that is not handled, or nil.
func (s *sets) next() *rawSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.again != nil || len(s.closed) == 0 {
		return nil
	}
	return s.closed[0]
}

// handled forgets the set that next returned.
func (s *sets) handled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed[0] = nil
	s.closed = s.closed[1:]
}
