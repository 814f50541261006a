package keeper

import (
	"maps"
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
	ready   bool
	status  string
	reaped  bool  // its wait status was taken: the pid can be another's from now on
	exit    *Exit // set once the tree is gone

	pidfd   int           // -1: none, or closed with the reaping
	tree    *tree         // safe by itself
	capture *capture      // safe by itself
	done    chan struct{} // closed when exit is set
}

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

// signal signals the leader or its group. The keeper is the only one to reap the leader, so as long as it has not, the
// pid and the number of the group are the leader's even if it is dead.
func (r *record) signal(sig syscall.Signal, group bool) error {
	if r.reaped {
		return unix.ESRCH
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
