package keeper

import (
	"maps"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// record is what the keeper knows of one process. Its fields are guarded by Keeper.mu unless they say otherwise.
type record struct {
	spec    Spawn // never changes
	run     string
	pid     int
	start   uint64
	started time.Time
	ready   bool
	status  string
	parent  parent // who takes its wait status
	reaped  bool   // its wait status was taken: the pid can be another's from now on
	ended   *Exit  // how the leader ended, set before its status is taken
	exit    *Exit  // set once the tree is gone
	watched bool   // by watchForeignLocked

	pidfd   int           // -1: none, or closed with the reaping
	tree    *tree         // safe by itself
	capture *capture      // safe by itself
	done    chan struct{} // closed when exit is set
}

// parent is who takes the wait status of a process.
type parent int

const (
	parentSelf    parent = iota // this keeper
	parentStandby               // its standby, which asks before it does so
	parentNone                  // somebody else: the pid can be another's at any time
)

// process is the record as clients see it.
func (r *record) process() Process {
	return Process{
		Name:       r.spec.Name,
		Run:        r.run,
		PID:        r.pid,
		StartTime:  r.start,
		Started:    r.started,
		Ready:      r.ready,
		Status:     r.status,
		Exit:       r.exit,
		LogDropped: r.capture.dropped.Load(),
		Labels:     maps.Clone(r.spec.Labels),
	}
}

// signal signals the leader or its group. The keeper, or its standby with the keeper's leave, is the only one to reap the
// leader, so as long as it has not, the pid and the number of the group are the leader's even if it is dead. The leader
// of another parent is reached by its pidfd alone.
func (r *record) signal(sig syscall.Signal, group bool) error {
	if r.reaped || r.pid == 0 {
		return unix.ESRCH
	}
	if r.parent == parentNone {
		if group {
			return signalForeignGroup(r.tree.leader, sig)
		}
		if r.pidfd < 0 {
			return unix.ESRCH // nothing says that it is still the same
		}
	}
	if group {
		return unix.Kill(-r.pid, sig)
	}
	if r.pidfd >= 0 {
		return unix.PidfdSendSignal(r.pidfd, sig, nil, 0)
	}
	return unix.Kill(r.pid, sig)
}

func exitOf(ws syscall.WaitStatus, at time.Time) Exit {
	if ws.Signaled() {
		return Exit{Code: -1, Signal: int(ws.Signal()), Time: at}
	}
	return Exit{Code: ws.ExitStatus(), Time: at}
}
