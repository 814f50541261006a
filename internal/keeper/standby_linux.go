package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// startTime bounds how long a keeper may take until it answers clients. It takes milliseconds; a loaded machine
	// and a thousand records need some of the rest.
	startTime = 30 * time.Second
	// lingerTime bounds the wait for the end of a dead keeper's link, which a child that it has just forked holds
	// open until its exec.
	lingerTime = 5 * time.Second
	// A keeper is started again at once; one that does not last keeperStable waits keeperDelay, doubled up to
	// maxKeeperDelay: services wait for the readers of their output meanwhile.
	keeperDelay    = 10 * time.Millisecond
	maxKeeperDelay = 500 * time.Millisecond
	keeperStable   = 300 * time.Millisecond
)

// standby is the parent of a keeper and does as little as can be done, so that it has no reason to die. It holds a
// duplicate of every descriptor that must outlive the keeper, each with a few words that it does not read, and starts
// the keeper again from them. As a subreaper it inherits the keeper's children, and holds each that ends as a zombie
// until a keeper has taken note of its status.
//
// Everything in it belongs to run.
type standby struct {
	k       *Keeper
	entries map[string]*entry

	keeper   int   // pid of the keeper
	link     *link // nil between two keepers
	serving  bool  // the keeper has said ready
	ever     bool  // some keeper has
	bye      bool  // the keeper has ended everything
	told     int   // pid of the zombie that the keeper was told of; 0: none
	began    time.Time
	delay    time.Duration
	patience *time.Timer // ends the wait for ready, or for the end of a dead keeper's link
}

// entry is a value with descriptors.
type entry struct {
	value json.RawMessage
	fds   []int
}

func newStandby(k *Keeper, entries map[string]*entry) *standby {
	s := &standby{k: k, entries: entries, patience: time.NewTimer(0)}
	s.patience.Stop()
	return s
}

// run keeps a keeper until it has ended everything.
func (s *standby) run(ctx context.Context) error {
	defer s.closeEntries()
	runtime.GOMAXPROCS(1) // one thread's caches are enough for a process that sleeps
	debug.SetGCPercent(keptHeap)
	term, children, stop := s.signals()
	defer stop()
	nudge(children, unix.SIGCHLD) // there may be zombies already
	for {
		if s.link == nil {
			if err := s.launch(); err != nil {
				return err
			}
		}
		s.attend(ctx, term, children)
		status := s.bury()
		switch {
		case s.bye && status.ExitStatus() == 0:
			return nil
		case s.bye || !s.ever && status.Exited():
			return fmt.Errorf("the keeper ended with %s", describe(status))
		}
		s.k.log.Error("keeper ended, another takes its place", "keeper", s.keeper, "cause", describe(status), "after", s.delay)
		if s.delay > 0 {
			timer := time.NewTimer(s.delay)
			select {
			case <-timer.C:
			case sig := <-term:
				timer.Stop()
				nudge(term, sig) // for the next keeper, which alone can stop what runs
			}
		}
	}
}

func (s *standby) signals() (term, children chan os.Signal, stop func()) {
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, unix.SIGHUP, unix.SIGPIPE) // as in the keeper
	term, children = make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM, unix.SIGINT)
	signal.Notify(children, unix.SIGCHLD)
	return term, children, func() {
		signal.Stop(dropped)
		signal.Stop(term)
		signal.Stop(children)
	}
}

// launch starts a keeper from this very binary, whatever its path names now, and hands everything to it.
func (s *standby) launch() error {
	own, other, err := newLink()
	if err != nil {
		return err
	}
	const inherited = 3
	pid, err := syscall.ForkExec(ownImage, os.Args, &syscall.ProcAttr{
		Env:   withRole(roleActive, inherited),
		Files: []uintptr{0, 1, 2, other.Fd()},
	})
	_ = other.Close() // before the keeper is ready, so that its end is seen
	if err != nil {
		return errors.Join(fmt.Errorf("start keeper: %w", err), own.close())
	}
	s.keeper, s.link, s.began = pid, own, time.Now()
	s.hand()
	slim()
	return nil
}

// hand gives everything to the keeper. One that does not take it ends, which attend sees.
func (s *standby) hand() {
	s.serving, s.told = false, 0
	s.patience.Reset(startTime)
	if err := s.link.send(parcel{Op: opHello, Value: s.k.versionJSON()}); err != nil {
		s.fell()
		return
	}
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		e := s.entries[key]
		if err := s.link.send(parcel{Op: opPut, Key: key, Value: e.value}, e.fds...); err != nil {
			s.k.log.Error("entry not handed over", "key", key, "error", err)
			s.fell()
			return
		}
	}
	if err := s.link.send(parcel{Op: opGo}); err != nil {
		s.fell()
	}
}

// fell ends a keeper that does not do its work. It is a child that was not waited for, so the pid is its own.
func (s *standby) fell() { _ = unix.Kill(s.keeper, unix.SIGKILL) }

// attend serves the keeper until its link ends.
func (s *standby) attend(ctx context.Context, term, children chan os.Signal) {
	parcels, more := make(chan parcel), make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(more)
	own := s.link
	wg.Go(func() {
		defer close(parcels)
		for range more { // not before the last one was dealt with: an exec between the two would lose it
			p, err := own.receive()
			if err != nil {
				return
			}
			parcels <- p
		}
	})
	over := ctx.Done()
	more <- struct{}{}
	for {
		select {
		case p, ok := <-parcels:
			if !ok {
				return
			}
			s.take(p)
			if s.bye {
				return
			}
			more <- struct{}{}
		case <-children:
			s.look()
		case <-over:
			over = nil
			_ = unix.Kill(s.keeper, unix.SIGTERM) // it may have ended by itself
		case <-term:
			_ = unix.Kill(s.keeper, unix.SIGTERM) // as above
		case <-s.patience.C:
			s.k.log.Error("keeper does not answer", "keeper", s.keeper)
			s.fell()
			_ = own.close() // a child that hangs before its exec holds the other end
			if p, ok := <-parcels; ok {
				s.take(p)
			}
			return
		}
	}
}

// take does what the keeper says.
func (s *standby) take(p parcel) {
	e := s.entries[p.Key]
	switch p.Op {
	case opPut:
		if e == nil {
			e = &entry{}
			s.entries[p.Key] = e
		}
		e.value, e.fds = p.Value, append(e.fds, p.fds...)
		return
	case opShut:
		if e != nil {
			closeAll(e.fds)
			e.value, e.fds = p.Value, nil
		}
	case opDrop:
		if e != nil {
			closeAll(e.fds)
			delete(s.entries, p.Key)
		}
		if strings.HasPrefix(p.Key, keySocket) {
			_ = s.link.send(parcel{Op: opGone, Key: p.Key}) // the link's end would be seen
		}
	case opReady:
		s.patience.Stop()
		s.serving = true
		s.ever = true
		s.k.isReady()
		s.look()
	case opReap:
		if p.PID == s.told {
			s.told = 0
			wait(p.PID)
			s.look()
		}
	case opResend:
		s.hand()
	case opRenew:
		s.renew(p.Key)
	case opBye:
		s.bye = true
		s.closeEntries()
		_ = s.link.close() // the keeper waits for this
	}
	closeAll(p.fds)
}

// look tells the keeper of a zombie, one at a time.
func (s *standby) look() {
	if s.told != 0 || s.link == nil {
		return
	}
	pid, exit, ok := peek()
	switch {
	case !ok:
	case pid == s.keeper:
		s.patience.Reset(lingerTime) // what it sent is still to be read; then the link ends
	case s.serving:
		s.told = pid
		if s.link.send(parcel{Op: opExited, PID: pid, Exit: &exit}) != nil {
			s.fell() // the next keeper is told
		}
	}
}

// bury waits for a keeper whose link has ended.
func (s *standby) bury() syscall.WaitStatus {
	s.patience.Stop()
	if !s.bye {
		s.fell()
	}
	status := wait(s.keeper)
	_ = s.link.close() // nothing is left to read
	s.link = nil
	switch {
	case time.Since(s.began) >= keeperStable:
		s.delay = 0
	default:
		s.delay = min(max(2*s.delay, keeperDelay), maxKeeperDelay)
	}
	return status
}

func (s *standby) closeEntries() {
	for _, e := range s.entries {
		closeAll(e.fds)
	}
	s.entries = map[string]*entry{}
}

// wait takes the wait status of a child.
func wait(pid int) syscall.WaitStatus {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			return status
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
