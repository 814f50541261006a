// Package reap takes the wait statuses of a process's children without stealing any.
//
// wait4(-1) takes whatever child ends next, so whoever calls it may take a status that another part of the process waits
// for. [Peek] only looks at a child that has ended; the caller then decides whose it is and takes it with [Take].
package reap

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childInfo is the siginfo_t of waitid(2), whose union starts at the alignment of a pointer.
type childInfo struct {
	Signo, Errno, Code int32
	_                  [unsafe.Sizeof(uintptr(0))/4 - 1]int32
	PID, UID, Status   int32
	_                  [104]byte
}

// Child is a child that has ended.
type Child struct {
	PID int
	// Exited says that it ended by itself: Status is its exit code. Otherwise a signal killed it: Status is the signal's number.
	Exited bool
	Status int
}

// Peek returns a child that has ended, and leaves it to be taken. It does not wait: without such a child ok is false.
func Peek() (c Child, ok bool) {
	for {
		var info childInfo
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		const exited = 1 // CLD_EXITED; else it was killed, with or without a core
		c = Child{PID: int(info.PID), Exited: info.Code == exited, Status: int(info.Status)}
		return c, err == nil && info.PID != 0
	}
}

// Take takes the status of the child pid, which Peek has shown to have ended.
func Take(pid int) (syscall.WaitStatus, error) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err != syscall.EINTR {
			return ws, err
		}
	}
}
