package supervisord

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// ShimCommand is the first argument of the daemon's binary when it is to run ExecShim with the arguments after it.
const ShimCommand = "supervisord-exec"

// launch is a child to be made.
type launch struct {
	command
	env        []string
	dir        string // "" stays
	umask      int    // -1 keeps the daemon's
	files      [3]uintptr
	uid        int // -1 keeps the daemon's user
	cred       *syscall.Credential
	uidProblem string // why uid cannot be had; the child then says so and ends
}

// spawner makes children on a thread of its own, whose umask is its own as well: the umask of a process is one for all
// its threads, unless they part.
type spawner struct {
	requests chan func(umask int)
	done     chan struct{}
}

// newSpawner starts the thread; close ends it.
func newSpawner() (*spawner, error) {
	s := &spawner{requests: make(chan func(int)), done: make(chan struct{})}
	started := make(chan error)
	go s.run(started)
	return s, <-started
}

func (s *spawner) run(started chan<- error) {
	defer close(s.done)
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, for it is no longer like the others
	err := unix.Unshare(unix.CLONE_FS)
	if err != nil {
		err = fmt.Errorf("part from the other threads' umask: %w", err)
	}
	own := unix.Umask(0)
	unix.Umask(own)
	started <- err
	if err != nil {
		return
	}
	for do := range s.requests {
		do(own)
	}
}

func (s *spawner) close() {
	close(s.requests)
	<-s.done
}

// spawn makes the child and returns its pid. The child is the program, or, when the program cannot be had, a process
// that says why on its standard error and ends with status 127, which is what a fork of Supervisor does. An error means
// that there is no child at all.
func (s *spawner) spawn(l *launch) (pid int, err error) {
	done := make(chan struct{})
	s.requests <- func(own int) {
		defer close(done)
		umask := own
		if l.umask >= 0 {
			umask = l.umask
		}
		unix.Umask(umask)
		if l.uidProblem == "" {
			pid, err = fork(l.file, l.argv, l)
			if err == nil {
				return
			}
		}
		pid, err = shim(l)
	}
	<-done
	return pid, err
}

func fork(file string, argv []string, l *launch) (int, error) {
	return syscall.ForkExec(file, argv, &syscall.ProcAttr{
		Dir:   l.dir,
		Env:   l.env,
		Files: l.files[:],
		Sys:   &syscall.SysProcAttr{Setpgid: true, Credential: l.cred},
	})
}

// shim starts a child that tries again what fork could not do, step by step, to say which step failed.
func shim(l *launch) (int, error) {
	argv := append([]string{"hozo", ShimCommand, fmt.Sprint(l.uid), l.uidProblem, l.dir, l.file, "--"}, l.argv...)
	plain := *l
	plain.dir, plain.cred = "", nil
	return fork("/proc/self/exe", argv, &plain)
}

// ExecShim becomes a program: args are a uid or -1, why that uid cannot be had, a folder, a file, "--" and the program's
// arguments. It returns, with the status to exit with, only when that failed; it has then said why on standard error.
func ExecShim(args []string, env []string) int {
	const fixed = 5
	if len(args) <= fixed {
		return shimFailed("couldn't exec: too few arguments")
	}
	uid, problem, dir, file, argv := args[0], args[1], args[2], args[3], args[fixed:]
	if problem != "" {
		return shimFailed(fmt.Sprintf("couldn't setuid to %s: %s", uid, problem))
	}
	var id int
	if _, err := fmt.Sscan(uid, &id); err != nil {
		return shimFailed(fmt.Sprintf("couldn't setuid to %s: %v", uid, err))
	}
	if id >= 0 {
		if problem := become(id); problem != "" {
			return shimFailed(fmt.Sprintf("couldn't setuid to %s: %s", uid, problem))
		}
	}
	if dir != "" {
		if err := os.Chdir(dir); err != nil {
			return shimFailed(fmt.Sprintf("couldn't chdir to %s: %s", dir, errnoName(err)))
		}
	}
	err := syscall.Exec(file, argv, env)
	return shimFailed(fmt.Sprintf("couldn't exec %s: %s", argv[0], errnoName(err)))
}

func shimFailed(why string) int {
	fmt.Fprintf(os.Stderr, "supervisor: %s\nsupervisor: child process was not spawned\n", why)
	return 127
}

// become changes this process's user for good.
func become(uid int) (problem string) {
	cred, problem := credentialFor(uid)
	if cred == nil {
		return problem
	}
	groups := make([]int, len(cred.Groups))
	for i, g := range cred.Groups {
		groups[i] = int(g)
	}
	switch {
	case syscall.Setgroups(groups) != nil:
		return "Could not set groups of effective user"
	case syscall.Setgid(int(cred.Gid)) != nil:
		return "Could not set group id of effective user"
	}
	if err := syscall.Setuid(int(cred.Uid)); err != nil {
		return err.Error()
	}
	return ""
}
