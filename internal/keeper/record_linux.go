package keeper

import (
	"maps"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// record is what the keeper knows of one process. Its fields are guarded by Keeper.mu unless they say otherwise.
type record struct {
	spec    Spawn // never changes but for its Log
	run     string
	pid     int
	start   uint64
	started time.Time
	since   time.Duration
	ready   bool
	status  string
	said    Said
	access  string   // NOTIFYACCESS; empty: all
	main    identity // of said.MainPID
	line    bool
	parent  parent // who takes its wait status
	reaped  bool   // its wait status was taken: the pid can be another's from now on
	ended   *Exit  // how the leader ended, set before its status is taken
	exit    *Exit  // set once the tree is gone
	watched bool   // by watchForeignLocked

	pidfd   int           // -1: none, or closed with the reaping
	tree    *tree         // safe by itself
	group   *group        // nil: none, tree alone tells
	unmet   []Unmet       // limits that are not kept
	born    chan struct{} // closed when it is known whether the program runs; nil: it does
	failed  bool          // it does not; never shown
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

// leader is the process whose end is the record's: the one that was started, or the one that it named as the main one.
func (r *record) leader() identity { return identity{r.pid, r.start} }

// processLocked is a record as clients see it.
func (k *Keeper) processLocked(r *record) Process {
	return Process{
		Name:       r.spec.Name,
		Run:        r.run,
		PID:        r.pid,
		StartTime:  r.start,
		Started:    r.started,
		Since:      r.since,
		Ready:      r.ready,
		Status:     r.status,
		Said:       r.said,
		Line:       r.line,
		Stored:     len(k.store.files[r.spec.store()]),
		Exit:       r.exit,
		Limits:     r.spec.Limits,
		Unmet:      slices.Clone(r.unmet),
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
			return signalForeignGroup(r.leader(), sig)
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
		return Exit{Code: -1, Signal: int(ws.Signal()), Time: at, At: Monotonic()}
	}
	return Exit{Code: ws.ExitStatus(), Time: at, At: Monotonic()}
}
