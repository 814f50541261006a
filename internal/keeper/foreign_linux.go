package keeper

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchForeignLocked watches those that live and are children of neither this keeper nor its standby. Both died at
// once or one after the other, so their parent is init or another subreaper, and a pidfd is all that tells their end.
func (k *Keeper) watchForeignLocked() {
	var watched []*record
	var fds []unix.PollFd
	for _, r := range k.live {
		if r.parent == parentNone && !r.watched {
			r.watched = true
			watched = append(watched, r)
			fds = append(fds, unix.PollFd{Fd: int32(r.pidfd), Events: unix.POLLIN}) // a negative one is never ready
		}
	}
	if len(watched) == 0 {
		return
	}
	wake, waker, err := os.Pipe()
	if err != nil {
		k.log.Error("adopted processes not watched", "error", err)
		return
	}
	k.wg.Go(func() {
		<-k.over
		_ = waker.Close() // nothing is written: its end is the message
	})
	fds = append(fds, unix.PollFd{Fd: int32(wake.Fd()), Events: unix.POLLIN})
	k.wg.Go(func() {
		defer wake.Close()
		k.pollForeign(watched, fds)
	})
}

func (k *Keeper) pollForeign(watched []*record, fds []unix.PollFd) {
	last := len(fds) - 1
	for left := len(watched); left > 0; {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			k.log.Error("adopted processes not watched any more", "error", err)
			return
		}
		if fds[last].Revents != 0 {
			return
		}
		for i, r := range watched {
			if fds[i].Revents == 0 {
				continue
			}
			left--
			fds[i].Fd = -1 // ignored from now on
			fds[i].Revents = 0
			k.mu.Lock()
			k.lostLocked(r)
			k.mu.Unlock()
		}
	}
}

// foreignStatus returns how a process ended that is not our child: from its pidfd, which knows it once the parent has
// reaped it (Linux 6.15), or from its zombie. Otherwise nobody can tell.
func foreignStatus(pidfd int, id identity) (syscall.WaitStatus, bool) {
	if status, ok := pidfdStatus(pidfd); ok {
		return status, true
	}
	if status, ok := zombieStatus(id); ok {
		return status, true
	}
	return pidfdStatus(pidfd) // reaped between the two
}

func pidfdStatus(pidfd int) (syscall.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if pidfd < 0 || unix.IoctlPidfdInfo(pidfd, &info) != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return syscall.WaitStatus(info.Exit_code), true
}

// zombieStatus reads the status that a zombie keeps for its parent.
func zombieStatus(id identity) (syscall.WaitStatus, bool) {
	p, err := readProc(id.pid)
	if err != nil || p.identity != id || !p.dead {
		return 0, false
	}
	// The kernel shows 0 to whoever may not know it, by the same right that it asks for this file.
	if _, err := os.ReadFile("/proc/" + strconv.Itoa(id.pid) + "/io"); err != nil {
		return 0, false
	}
	return syscall.WaitStatus(p.exit), true
}

// signalForeignGroup signals the group of a leader that another process may reap at any time. Its number is the
// leader's group for as long as the leader is there, and each member is signalled by a pidfd of its own, so a pid that
// is used again is never hit.
func signalForeignGroup(leader identity, sig unix.Signal) error {
	all, err := processes()
	if err != nil {
		return err
	}
	var members []handle
	defer func() {
		for _, h := range members {
			h.close()
		}
	}()
	for _, p := range all {
		if p.group != leader.pid {
			continue
		}
		if h, ok := openIdentity(p.identity); ok {
			members = append(members, h)
		}
	}
	if p, err := readProc(leader.pid); err != nil || p.identity != leader {
		return unix.ESRCH
	}
	for _, h := range members {
		_ = h.signal(sig) // one that has just ended needs none
	}
	return nil
}
