package keeper

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/reap"
)

// drainTime is how long the end of a process's output is awaited once its tree is gone. What is left is at most a pipe
// (64 KiB, 1 MiB if enlarged), so only a log on a dead disk takes longer.
const drainTime = 2 * time.Second

// reap takes wait statuses whenever SIGCHLD says that there are some, until ended is closed.
func (k *Keeper) reap(children <-chan os.Signal, ended <-chan struct{}) {
	for {
		select {
		case <-children:
			k.reapAll()
		case <-ended:
			return
		}
	}
}

// reapAll takes every wait status there is. A leader is looked at before it is reaped: as a zombie it keeps its pid, so
// its group and session can be found without mistake. Strangers are orphans that the subreaper got.
func (k *Keeper) reapAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	var seen *scan
	for {
		pid, exit, ok := peek()
		if !ok {
			return
		}
		if r := k.live[pid]; r != nil {
			seen = k.leaderGoneLocked(r, exit, seen)
		}
		wait(pid)
	}
}

// leaderGoneLocked goes on from a leader that is a zombie: its last notifications are taken, as long as they are known to
// be its own, and then its record ends, or goes on with the process that it has named as the main one.
func (k *Keeper) leaderGoneLocked(r *record, exit Exit, seen *scan) *scan {
	if r.spec.Notify {
		k.mu.Unlock()
		k.notifier.flush()
		k.mu.Lock()
	}
	next, succeeds := k.successorLocked(r)
	if !succeeds {
		_ = unix.Kill(-r.pid, unix.SIGKILL) // the leader alone makes this succeed; the rest may be empty
	}
	seen = k.rememberLocked(r, seen)
	if succeeds {
		k.succeedLocked(r, next)
		return seen
	}
	k.leaderEndedLocked(r, exit)
	return seen
}

// leaderEndedLocked ends the record of a leader. The standby is told before anybody takes the wait status, so it is
// known whatever ends this process.
func (k *Keeper) leaderEndedLocked(r *record, exit Exit) {
	r.ended, r.reaped = &exit, true
	delete(k.live, r.pid)
	k.depositRecord(r)
	k.dropPidfd(r)
	k.wg.Go(func() { k.finish(r, exit) })
}

func (k *Keeper) dropPidfd(r *record) {
	if r.pidfd >= 0 {
		_ = unix.Close(r.pidfd) // a pidfd has nothing to flush
		r.pidfd = -1
	}
}

// rememberLocked looks for the tree of a leader that has exited, as long as its session and group can be told. A scan
// serves if the leader was dead in it already: from then on as a zombie it vouches for its numbers.
func (k *Keeper) rememberLocked(r *record, seen *scan) *scan {
	if r.group.holds() {
		return seen // nothing leaves a cgroup by dying
	}
	if r.tree.isWhole() {
		return seen
	}
	if !seen.dead(r.leader()) {
		fresh, err := k.census.take()
		if err != nil {
			k.log.Error("rest of a tree not looked for", "process", r.spec.Name, "error", err)
			return seen
		}
		seen = fresh
	}
	r.tree.findIn(seen, false)
	return seen
}

// finish ends the rest of a tree whose leader was reaped, waits for its output and only then tells the exit.
func (k *Keeper) finish(r *record, exit Exit) {
	if r.born != nil {
		<-r.born
	}
	exit.Survivors = k.endTree(r)
	// A kernel that is short of memory kills by SIGKILL, as anybody may.
	exit.OOM = exit.Signal == int(unix.SIGKILL) && r.group.oomKills() > 0
	r.capture.await(drainTime)
	k.tellEnd(r, exit)
	if len(exit.Survivors) == 0 {
		r.group.remove() // nobody has to wait for this
	}
}

// tellEnd completes the record of a process of which nothing is left to wait for.
func (k *Keeper) tellEnd(r *record, exit Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r.exit = &exit
	if len(exit.Survivors) == 0 {
		k.noteLocked(namedIdentity{Name: r.spec.Name, Run: r.run, Ended: true})
	}
	if r.failed { // it never ran, so nobody was told of it
		close(r.done)
		return
	}
	k.depositRecord(r)
	k.emitLocked(Event{Kind: EventExited, Process: k.processLocked(r)})
	k.log.Info("process exited", "process", r.spec.Name, "pid", r.pid, "code", exit.Code, "signal", exit.Signal)
	close(r.done)
}

// peek returns a child that has exited, and leaves it to be reaped.
func peek() (pid int, exit Exit, ok bool) {
	c, ok := reap.Peek()
	exit = Exit{Code: c.Status, Time: time.Now(), At: Monotonic()}
	if !c.Exited {
		exit.Code, exit.Signal = -1, c.Status
	}
	return c.PID, exit, ok
}
