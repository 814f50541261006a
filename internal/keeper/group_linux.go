package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// group is the cgroup of one incarnation. Whatever its processes do, whether they leave the session, empty their
// environment or lose their parents, they stay in it. Its methods are safe for concurrent use.
type group struct {
	dir    string // empty: it only limits, the tree is held together otherwise
	home   string // the keeper's own group in that hierarchy
	v2     bool
	limits []limitGroup // version 1 groups of controllers; guarded by Keeper.mu
}

// limitGroup is a version 1 group of a controller.
type limitGroup struct{ controller, dir, home string }

// holds says whether the group is what holds a tree together.
func (g *group) holds() bool { return g != nil && g.dir != "" }

// fork starts a process in the group. A child of version 2 is born in it; one of version 1 is in the group of the thread
// that forks it, so that thread goes there and comes back. There is no instant at which the child is elsewhere.
func (g *group) fork(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if g == nil {
		return syscall.ForkExec(program, argv, attr)
	}
	if g.v2 {
		dir, err := unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, &groupError{err}
		}
		defer closeAll([]int{dir})
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	}
	visits := g.visits()
	if len(visits) == 0 {
		return syscall.ForkExec(program, argv, attr)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		var back error
		if pid, back, err = forkVisiting(visits, program, argv, attr); back == nil {
			runtime.UnlockOSThread() // else the thread ends with its goroutine
		}
	})
	wg.Wait()
	return pid, err
}

// visit is a version 1 group that the forking thread goes to, and where it came from.
type visit struct{ dir, home string }

func (g *group) visits() []visit {
	var all []visit
	if !g.v2 && g.dir != "" {
		all = append(all, visit{g.dir, g.home})
	}
	for _, l := range g.limits {
		all = append(all, visit{l.dir, l.home})
	}
	return all
}

func forkVisiting(visits []visit, program string, argv []string, attr *syscall.ProcAttr) (pid int, back, err error) {
	thread := strconv.Itoa(unix.Gettid())
	for i, v := range visits {
		if err = writeGroup(v.dir, "tasks", thread); err != nil {
			err = &groupError{fmt.Errorf("enter %s: %w", v.dir, err)}
			visits = visits[:i]
			break
		}
	}
	if err == nil {
		pid, err = syscall.ForkExec(program, argv, attr)
	}
	for _, v := range visits {
		back = errors.Join(back, writeGroup(v.home, "tasks", thread))
	}
	return pid, back, err
}

// groupError is an error of a group, not of the program that was to be started in it.
type groupError struct{ error }

func (e *groupError) Unwrap() error { return e.error }

// groupFailed says whether a failed fork may be the fault of the group.
func groupFailed(err error) bool {
	if _, own := errors.AsType[*groupError](err); own {
		return true
	}
	// What clone3(2) says of a group; of these the program can be the reason as well.
	for _, errno := range []error{unix.EACCES, unix.EPERM, unix.EBUSY, unix.EOPNOTSUPP, unix.ENODEV, unix.ENOSYS, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// end kills everything in the group and returns when nothing is left, or at the deadline with the pids that are. A
// group that is gone is empty.
func (g *group) end(deadline time.Time) (survivors []int, err error) {
	if g.v2 {
		survivors, err = g.kill(deadline)
	} else {
		survivors, err = g.freezeAndKill(deadline)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	return survivors, err
}

// kill ends a version 2 group: the kernel kills all of it at once, forks that are under way included.
func (g *group) kill(deadline time.Time) ([]int, error) {
	events, err := os.Open(filepath.Join(g.dir, "cgroup.events"))
	if err != nil {
		return nil, err
	}
	defer events.Close()
	asked := false
	for wait := (pause{}); ; {
		populated, err := populated(events)
		if err != nil || !populated {
			return nil, err
		}
		if !asked {
			if err := writeGroup(g.dir, "cgroup.kill", "1"); err != nil {
				return nil, fmt.Errorf("kill %s: %w", g.dir, err)
			}
			asked = true
			continue
		}
		if time.Now().After(deadline) {
			return g.pids()
		}
		wait.rest()
	}
}

func populated(events *os.File) (bool, error) {
	buf := make([]byte, 256) // it has two short lines
	n, err := events.ReadAt(buf, 0)
	if n == 0 {
		return false, err
	}
	return strings.Contains(string(buf[:n]), "populated 1"), nil
}

// freezeAndKill ends a group of the version 1 freezer: nothing in it can fork or end while it is frozen, so the list is
// complete and its pids are theirs.
func (g *group) freezeAndKill(deadline time.Time) ([]int, error) {
	for {
		pids, err := g.pids()
		if err != nil || len(pids) == 0 {
			return nil, err
		}
		if time.Now().After(deadline) {
			return pids, nil
		}
		if err := g.freeze(); err != nil {
			return nil, err
		}
		var fds []unix.PollFd
		pids, err = g.pids()
		for _, pid := range pids {
			if fd, openErr := unix.PidfdOpen(pid, 0); openErr == nil {
				defer closeAll([]int{fd})
				fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			}
			_ = unix.Kill(pid, unix.SIGKILL) // whoever cannot be killed shows in the next round
		}
		if err := errors.Join(err, writeGroup(g.dir, "freezer.state", "THAWED")); err != nil {
			return nil, err
		}
		if err := awaitDeaths(fds, deadline); err != nil {
			return nil, err
		}
	}
}

// freeze freezes a version 1 group. A task that is busy in the kernel keeps it "FREEZING" for a while, which only means
// that the search is not complete: freezeAndKill looks again.
func (g *group) freeze() error {
	const tries = 50
	for range tries {
		if err := writeGroup(g.dir, "freezer.state", "FROZEN"); err != nil {
			return fmt.Errorf("freeze %s: %w", g.dir, err)
		}
		if state, err := readGroup(g.dir, "freezer.state"); err != nil || state == "FROZEN" {
			return err
		}
		_, _ = unix.Poll(nil, 1) // a millisecond
	}
	return nil
}

// pids are the processes in the group, zombies aside.
func (g *group) pids() ([]int, error) {
	text, err := readGroup(g.dir, "cgroup.procs")
	if err != nil {
		return nil, err
	}
	var all []int
	for field := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(g.dir, "cgroup.procs"), err)
		}
		if pid > 0 { // 0 is one of another pid namespace
			all = append(all, pid)
		}
	}
	return all, nil
}

// remove removes the folders of an empty group. The last process may still be on its way out of it.
func (g *group) remove() {
	if g == nil {
		return
	}
	for _, l := range g.limits {
		removeGroup(l.dir)
	}
	removeGroup(g.dir)
}

func removeGroup(dir string) {
	if dir == "" {
		return
	}
	const tries = 20
	for range tries {
		if err := unix.Rmdir(dir); err != unix.EBUSY {
			return // what stays is removed with the project's folder
		}
		_, _ = unix.Poll(nil, 1) // a millisecond
	}
}
