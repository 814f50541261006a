package keeper

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killTime is how long the end of a tree is awaited after SIGKILL. A process takes longer only in an
	// uninterruptible wait, on a dead disk for example, which no signal ends.
	killTime = 5 * time.Second
	// freezePasses bounds the search for new members before a kill, which a fork bomb could prolong for ever.
	freezePasses = 8
)

// tree is a process with everything that descends from it. It is safe for concurrent use.
type tree struct {
	run    string   // HOZO_RUN; empty: not looked for
	leader identity // zero when only the run is known
	census *census  // nil: it looks for itself

	mu      sync.Mutex
	members map[identity]bool // everything that was ever seen to belong, the leader aside
	whole   bool              // members is all there is: all of it was stopped when it was found
}

func newTree(run string, leader identity) *tree {
	return &tree{run: run, leader: leader, members: map[identity]bool{}}
}

// end kills the whole tree and returns when nothing of it is left, or at the deadline with the pids that are. First all
// of it is stopped, so that nothing can fork unseen between the search and the kill.
func (t *tree) end(deadline time.Time) (survivors []int, err error) {
	for {
		alive, err := t.freeze()
		if err != nil {
			return survivors, err
		}
		if len(alive) == 0 {
			return nil, nil
		}
		survivors = survivors[:0]
		for _, p := range alive {
			survivors = append(survivors, p.pid)
		}
		slices.Sort(survivors)
		if time.Now().After(deadline) {
			return survivors, nil
		}
		if err := killAll(alive, deadline); err != nil {
			return survivors, err
		}
	}
}

// freeze stops members until a search finds no new one, and returns those that live.
func (t *tree) freeze() ([]proc, error) {
	stopped := map[identity]bool{}
	for pass := 0; ; pass++ {
		alive, err := t.find(true)
		if err != nil {
			return nil, err
		}
		fresh := false
		for _, p := range alive {
			if stopped[p.identity] {
				continue
			}
			fresh = true
			stopped[p.identity] = true
			if fd, ok := openIdentity(p.identity); ok {
				_ = fd.signal(unix.SIGSTOP) // one that ended meanwhile needs no stop
				fd.close()
			}
		}
		if !fresh || pass == freezePasses {
			t.mu.Lock()
			t.whole = !fresh
			t.mu.Unlock()
			return alive, nil
		}
	}
}

func (t *tree) isWhole() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.whole
}

// find looks for the members of the tree that live and remembers them. The pid of the leader counts as the number of a
// group and session only while the leader itself is there, be it as a zombie: later the number can be another's.
// Without environ the environments are not read, which takes most of the time.
func (t *tree) find(environ bool) ([]proc, error) {
	s, err := t.census.take()
	if err != nil {
		return nil, err
	}
	return t.findIn(s, environ), nil
}

// findIn is find among processes that were listed a moment ago.
func (t *tree) findIn(s *scan, environ bool) []proc {
	all := s.procs
	children, everyone := s.indexed()
	_, pinned := everyone[t.leader]
	t.mu.Lock()
	defer t.mu.Unlock()
	self := os.Getpid()
	found := map[identity]bool{}
	var alive []proc
	var add func(p proc)
	add = func(p proc) {
		if p.pid == self || found[p.identity] {
			return // never the keeper itself: it may descend from a leftover that started it
		}
		found[p.identity] = true
		if p.identity != t.leader {
			t.members[p.identity] = true
		}
		if !p.dead {
			alive = append(alive, p)
		}
		for _, child := range children[p.pid] {
			add(child)
		}
	}
	for _, p := range all {
		if p.identity == t.leader || t.members[p.identity] || pinned && t.follows(p) {
			add(p)
		}
	}
	if !environ || t.run == "" {
		return alive
	}
	for _, p := range all {
		// Descendants are younger than the leader, so most of the machine need not be read.
		if p.start >= t.leader.start && !p.dead && !found[p.identity] && s.run(p.pid) == t.run {
			add(p)
		}
	}
	return alive
}

// follows says whether a process belongs by what it has of the leader, which must be there.
func (t *tree) follows(p proc) bool {
	return p.group == t.leader.pid || p.session == t.leader.pid || p.parent == t.leader.pid
}

// killAll kills processes and waits until they are dead, or for the deadline.
func killAll(procs []proc, deadline time.Time) error {
	var fds []unix.PollFd
	unwatched := false
	for _, p := range procs {
		h, ok := openIdentity(p.identity)
		if !ok {
			continue
		}
		defer h.close()
		_ = h.signal(unix.SIGKILL) // whoever cannot be killed shows in the next search
		if h.fd >= 0 {
			fds = append(fds, unix.PollFd{Fd: int32(h.fd), Events: unix.POLLIN})
		} else {
			unwatched = true
		}
	}
	if unwatched {
		// Without a pidfd (none left, or a kernel before 5.3) nothing tells the end; look again soon.
		deadline = time.Now().Add(min(time.Until(deadline), 5*time.Millisecond))
	}
	return awaitDeaths(fds, deadline)
}

// awaitDeaths returns when every pidfd is readable, which is when its process is dead, or at the deadline.
func awaitDeaths(fds []unix.PollFd, deadline time.Time) error {
	for wait := (pause{}); len(fds) > 0; {
		_, err := unix.Poll(fds, 0)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for killed processes: %w", err)
		}
		if err == nil {
			fds = slices.DeleteFunc(fds, func(f unix.PollFd) bool { return f.Revents != 0 })
		}
		if len(fds) == 0 || time.Now().After(deadline) {
			return nil
		}
		wait.rest()
	}
	return nil
}

// pause is the time between two looks at what was killed and is as good as dead: half a millisecond, then longer. To wait
// inside the kernel would hold a thread for each tree, and a thousand stops at once are slowed down by those, not by the
// looking. Nor would it tell more: a cgroup's end is not told when it comes within 10 ms of another change.
type pause struct{ last time.Duration }

func (p *pause) rest() {
	const first, longest = 500 * time.Microsecond, 20 * time.Millisecond
	p.last = min(max(2*p.last, first), longest)
	<-time.After(p.last)
}

// handle signals one process and no other that gets its pid later.
type handle struct {
	pid int
	fd  int // pidfd, or -1
}

// openIdentity opens the process that has an identity; false means that it is gone. The start time is read after the
// pidfd is open: if it is still the same, the pidfd is of that process.
func openIdentity(id identity) (handle, bool) {
	fd, err := unix.PidfdOpen(id.pid, 0)
	if err == unix.ESRCH {
		return handle{}, false
	}
	h := handle{pid: id.pid, fd: fd}
	if err != nil {
		h.fd = -1
	}
	if p, err := readProc(id.pid); err != nil || p.identity != id {
		h.close()
		return handle{}, false
	}
	return h, true
}

func (h handle) signal(sig unix.Signal) error {
	if h.fd >= 0 {
		return unix.PidfdSendSignal(h.fd, sig, nil, 0)
	}
	return unix.Kill(h.pid, sig)
}

func (h handle) close() {
	if h.fd >= 0 {
		_ = unix.Close(h.fd) // a pidfd has nothing to flush
	}
}

// endTree kills the tree of a record and returns the pids that could not be.
func (k *Keeper) endTree(r *record) []int {
	k.mu.Lock()
	held := r.group // a change of limits may make one
	k.mu.Unlock()
	end := r.tree.end
	if held.holds() {
		end = held.end
	}
	left, err := end(time.Now().Add(killTime))
	if err != nil {
		k.log.Error("tree not ended", "process", r.spec.Name, "error", err)
	}
	if len(left) > 0 {
		k.log.Error("processes survive a kill", "process", r.spec.Name, "pids", left)
	}
	return left
}
