package keeper

import (
	"sync"

	"github.com/hozo-dev/hozo/internal/logfile"
)

// sharedLog is what the captures of one log have in common. There is one as a rule, and two while a process of an
// instance replaces another: they write by turns, each at the file's end.
type sharedLog struct {
	users int // captures; guarded by logs.mu

	mu         sync.Mutex // held from the look at the file's size to the end of the write, and guards what follows
	generation uint64     // counts the files that have had the name
	index      *logfile.IndexWriter
	seq        uint64 // of the file that was opened last
}

// join returns the shared part of a log. Whoever joins parts later.
func (l *logs) join(path string) *sharedLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shared[path]
	if s == nil {
		s = &sharedLog{}
		l.shared[path] = s
	}
	s.users++
	return s
}

// part gives the shared part of a log up, the last user all of it.
func (l *logs) part(path string, s *sharedLog) {
	l.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		delete(l.shared, path)
	}
	l.mu.Unlock()
	if last {
		s.mu.Lock()
		s.closeIndex()
		s.mu.Unlock()
	}
}

// moved notes that the name is another file's now. mu is held.
func (s *sharedLog) moved() {
	s.generation++
	s.closeIndex()
}

// closeIndex ends the index; the next look at the file begins it again. mu is held.
func (s *sharedLog) closeIndex() {
	if s.index != nil {
		_ = s.index.Close() // every write's error was seen
		s.index = nil
	}
}
