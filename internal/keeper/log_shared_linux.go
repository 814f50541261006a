package keeper

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/logfile"
)

// sharedLog is what the captures of one log have in common. There is one as a rule, and two while a process of an
// instance replaces another: they write at the file's end, and take turns at the end of a line. A line is cut only if its
// end does not come within lineWait, or if it stood open when the keeper was killed.
type sharedLog struct {
	users atomic.Int32 // captures; changed with logs.mu held

	mu         sync.Mutex // held from the look at the file's size to the end of the write, and guards what follows
	generation uint64     // counts the files that have had the name
	index      *logfile.IndexWriter
	seq        uint64   // of the file that was opened last
	last       *capture // whose output is at the end of the file; nil when that is not known, or over
	waiting    *capture // for the end of last's line
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
	s.users.Add(1)
	return s
}

// part gives the shared part of a log up, the last user all of it.
func (l *logs) part(path string, s *sharedLog) {
	l.mu.Lock()
	last := s.users.Add(-1) == 0
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

// leave notes that a capture writes no more. mu is held.
func (s *sharedLog) leave(c *capture) {
	if s.last == c {
		s.last = nil
		s.release()
	}
	if s.waiting == c {
		s.waiting = nil
	}
}

// release has the capture that waits look again. mu is held.
func (s *sharedLog) release() {
	if s.waiting != nil {
		s.waiting.nudge()
		s.waiting = nil
	}
}

// wrote notes whose output is at the end of the file. mu is held.
func (c *capture) wrote(size int64) {
	c.shared.last = c
	if c.shared.waiting != nil && c.endsLine(size) {
		c.shared.release()
	}
}

// yields says whether the capture has to wait because another one's line stands open at the end of the file. mu is held.
// All turns of a process that has ended wait for as long as one of another: its output is awaited for a while only.
func (c *capture) yields(pipe int, size int64) bool {
	s := c.shared
	if s.last == nil || s.last == c || size == 0 || c.endsLine(size) {
		if !hungUp(pipe) {
			c.yielded = time.Time{}
		}
		return false
	}
	if c.yielded.IsZero() {
		c.yielded = c.now
	}
	c.until = c.yielded.Add(lineWait)
	if !c.now.Before(c.until) {
		return false
	}
	s.waiting = c
	return true
}

// wholeLines returns how many of the next n bytes make whole lines. Where there is only a part of one its rest is awaited,
// for a while. With 0, out says what the turn comes to. mu is held.
func (c *capture) wholeLines(pipe int, size int64, n int) (_ int, out outcome) {
	data, out := c.peek(pipe, n)
	if len(data) == 0 {
		return 0, out
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	if end == 0 {
		begun := c.shared.last == c && size > 0 && !c.endsLine(size)
		if !begun && len(data) < min(n, len(c.buf)) && !hungUp(pipe) {
			if c.held.IsZero() {
				c.held = c.now
				c.asked.Store(true) // attend wakes it in time
				return 0, again
			}
			if c.now.Before(c.held.Add(lineWait)) {
				return 0, idle
			}
		}
		end = len(data)
	}
	c.held = time.Time{}
	return end, again
}

// hungUp says whether a pipe has no writer any more.
func hungUp(pipe int) bool {
	fds := []unix.PollFd{{Fd: int32(pipe)}}
	n, err := unix.Poll(fds, 0)
	return n == 1 && err == nil && fds[0].Revents&unix.POLLHUP != 0
}
