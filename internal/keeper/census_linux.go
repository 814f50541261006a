package keeper

import (
	"sync"
)

// census lists the processes of the machine for many who ask at once: whoever asks gets a scan that began after they
// did, and those who wait share it. The zero census is ready; a nil one scans for each. It is safe for concurrent use.
type census struct {
	turn sync.Mutex // held during a scan
	mu   sync.Mutex
	next *scan // not begun yet
}

// scan is what was there during a moment.
type scan struct {
	procs []proc
	err   error
	over  bool // guarded by census.turn

	mu       sync.Mutex
	runs     map[int]string // HOZO_RUN by pid, as far as it was looked for
	index    sync.Once
	children map[int][]proc
	found    map[identity]proc
}

// indexed makes the maps of a scan, once for all who look for a tree in it.
func (s *scan) indexed() (children map[int][]proc, found map[identity]proc) {
	s.index.Do(func() {
		s.children, s.found = make(map[int][]proc, len(s.procs)), make(map[identity]proc, len(s.procs))
		for _, p := range s.procs {
			s.children[p.parent] = append(s.children[p.parent], p)
			s.found[p.identity] = p
		}
	})
	return s.children, s.found
}

func (c *census) take() (*scan, error) {
	if c == nil {
		all, err := processes()
		return &scan{procs: all}, err
	}
	c.mu.Lock()
	if c.next == nil {
		c.next = &scan{}
	}
	s := c.next
	c.mu.Unlock()
	c.turn.Lock()
	defer c.turn.Unlock()
	if !s.over {
		c.mu.Lock()
		c.next = nil // who comes from now on wants another
		c.mu.Unlock()
		s.procs, s.err = processes()
		s.over = true
	}
	return s, s.err
}

// run is the HOZO_RUN of a process.
func (s *scan) run(pid int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	run, known := s.runs[pid]
	if !known {
		if s.runs == nil {
			s.runs = map[int]string{}
		}
		run = environRun(pid)
		s.runs[pid] = run
	}
	return run
}

// dead says whether a process was there and dead.
func (s *scan) dead(id identity) bool {
	if s == nil {
		return false
	}
	_, found := s.indexed()
	return found[id].dead
}
