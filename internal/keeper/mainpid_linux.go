package keeper

import (
	"os"

	"golang.org/x/sys/unix"
)

// successorLocked says whether a leader that has exited named another process of its tree as the main one, as a daemon
// does that forks: the service is then that process. It must live and have become a child of the keeper, or of the
// standby, which tells how it ends; else its exit status could not be taken.
func (k *Keeper) successorLocked(r *record) (proc, bool) {
	if r.main.pid == 0 || r.main.pid == r.pid {
		return proc{}, false
	}
	p, err := readProc(r.main.pid)
	return p, err == nil && p.identity == r.main && !p.dead && (p.parent == os.Getpid() || k.link != nil && p.parent == k.hello.Standby)
}

// succeedLocked makes another process the leader of a record whose leader was reaped. Whoever was found of the tree
// stays its member.
func (k *Keeper) succeedLocked(r *record, p proc) {
	if r.pidfd >= 0 {
		_ = unix.Close(r.pidfd) // a pidfd has nothing to flush
	}
	pidfd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		pidfd = -1
	}
	old := r.pid
	r.parent = parentSelf
	if p.parent != os.Getpid() {
		r.parent = parentStandby
	}
	r.pid, r.start, r.pidfd = p.pid, p.start, pidfd
	delete(k.live, old)
	k.live[p.pid] = r
	k.depositRecord(r, pidfds(r)...)
	k.saveLocked()
	k.log.Info("main process succeeds its leader", "process", r.spec.Name, "leader", old, "pid", p.pid)
	k.emitLocked(Event{Kind: EventNotify, Process: k.processLocked(r)})
}
