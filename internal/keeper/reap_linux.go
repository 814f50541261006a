package keeper

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
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
	heard := 0 // leader whose notifications have all been taken
	for {
		pid, ok := peek()
		if !ok {
			return
		}
		r := k.live[pid]
		if r != nil && r.spec.Notify && heard != pid {
			// As long as it is a zombie its last notifications are known to be its own.
			heard = pid
			k.mu.Unlock()
			k.notifier.flush()
			k.mu.Lock()
			continue
		}
		var next proc
		succeeds := false
		if r != nil {
			if next, succeeds = k.successorLocked(r); !succeeds {
				_ = unix.Kill(-r.pid, unix.SIGKILL) // the leader alone makes this succeed; the rest may be empty
			}
			k.rememberLocked(r)
		}
		var ws syscall.WaitStatus
		for {
			got, err := syscall.Wait4(pid, &ws, 0, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || got != pid {
				// Only the kernel could take a zombie away between peek and here, and it does not.
				k.log.Error("child not reaped", "pid", pid, "error", err)
				return
			}
			break
		}
		if r == nil {
			continue
		}
		if succeeds {
			k.succeedLocked(r, next)
			continue
		}
		delete(k.live, pid)
		r.reaped = true
		if r.pidfd >= 0 {
			_ = unix.Close(r.pidfd) // a pidfd has nothing to flush
			r.pidfd = -1
		}
		exit := exitOf(ws, time.Now())
		k.wg.Go(func() { k.finish(r, exit) })
	}
}

// rememberLocked looks for the tree of a leader that has exited, as long as its session and group can be told.
func (k *Keeper) rememberLocked(r *record) {
	if _, err := r.tree.find(false); err != nil {
		k.log.Error("rest of a tree not looked for", "process", r.spec.Name, "error", err)
	}
}

// finish ends the rest of a tree whose leader was reaped, waits for its output and only then tells the exit.
func (k *Keeper) finish(r *record, exit Exit) {
	exit.Survivors = k.endTree(r)
	r.capture.await(drainTime)
	k.mu.Lock()
	defer k.mu.Unlock()
	r.exit = &exit
	k.saveLocked()
	k.emitLocked(Event{Kind: EventExited, Process: k.processLocked(r)})
	k.log.Info("process exited", "process", r.spec.Name, "pid", r.pid, "code", exit.Code, "signal", exit.Signal)
	close(r.done)
}

// childInfo is the siginfo_t of waitid(2), whose union starts at the alignment of a pointer.
type childInfo struct {
	Signo, Errno, Code int32
	_                  [unsafe.Sizeof(uintptr(0))/4 - 1]int32
	PID                int32
	_                  [112]byte
}

// peek returns a child that has exited, and leaves it to be reaped.
func peek() (pid int, ok bool) {
	for {
		var info childInfo
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		return int(info.PID), err == nil && info.PID != 0
	}
}
