package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExecShim becomes the program args[1] with the arguments from there, after it has done what the plan args[0] says. The
// environment is env, with LISTEN_PID and WATCHDOG_PID as needed. It returns only when the exec did not happen; the
// keeper was told why then, and the caller prints the error and exits with status 127.
func ExecShim(args, env []string) error {
	var plan shimPlan
	if len(args) < 2 {
		return errors.New(ShimCommand + " needs a plan and a program")
	}
	if err := json.Unmarshal([]byte(args[0]), &plan); err != nil {
		return fmt.Errorf("read plan of %s: %w", ShimCommand, err)
	}
	unix.CloseOnExec(plan.Report)
	runtime.LockOSThread() // niceness is a thread's; this one becomes the program
	report, err := plan.carryOut(args[1:], env)
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		report.Errno = uintptr(errno)
	}
	report.send(plan.Report)
	return err
}

func (p shimPlan) carryOut(argv, env []string) (report shimReport, err error) {
	report.Unmet = p.settings()
	if p.User {
		groups := make([]int, len(p.Groups))
		for i, g := range p.Groups {
			groups[i] = int(g)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return report, fmt.Errorf("set groups: %w", err)
		}
		if err := syscall.Setgid(int(p.GID)); err != nil {
			return report, fmt.Errorf("set group %d: %w", p.GID, err)
		}
		if err := syscall.Setuid(int(p.UID)); err != nil {
			return report, fmt.Errorf("set user %d: %w", p.UID, err)
		}
	}
	if p.Dir != "" {
		if err := os.Chdir(p.Dir); err != nil {
			report.Dir = true
			return report, err
		}
	}
	env = withOwnPID(env)
	if len(report.Unmet) > 0 {
		report.send(p.Report)
		report.Unmet = nil // said
	}
	for _, r := range p.Limits.resources() {
		if r.Number != unix.RLIMIT_AS && r.Number != unix.RLIMIT_NPROC {
			continue
		}
		if err := limit(r.Number, *r.Value); err != nil {
			shimReport{Unmet: []Unmet{notPermitted(r.Name, err)}}.send(p.Report)
		}
	}
	return report, fmt.Errorf("exec %s: %w", argv[0], syscall.Exec(p.Program, argv, env))
}

// withOwnPID sets LISTEN_PID and WATCHDOG_PID to this process where they have a meaning. They must be the pid of the
// program that they are meant for, and only the child itself can know it before exec.
func withOwnPID(env []string) []string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, prefix) })
	}
	own := map[string]bool{"LISTEN_PID=": has("LISTEN_FDS="), "WATCHDOG_PID=": has("WATCHDOG_USEC=")}
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return strings.HasPrefix(kv, "LISTEN_PID=") || strings.HasPrefix(kv, "WATCHDOG_PID=")
	})
	for prefix, set := range own {
		if set {
			env = append(env, fmt.Sprintf("%s%d", prefix, os.Getpid()))
		}
	}
	return env
}

// settings makes the settings that need the keeper's rights, if it has them, and returns those that it could not. The
// address space and the number of threads are lowered later: this process needs more of both than the program may.
func (p shimPlan) settings() []Unmet {
	var unmet []Unmet
	if adj := p.Limits.OOMScoreAdj; adj != nil {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*adj)), 0); err != nil {
			unmet = append(unmet, notPermitted("oom_score_adj", err))
		}
	}
	if nice := p.Limits.Nice; nice != nil {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, *nice); err != nil {
			unmet = append(unmet, notPermitted("nice", err))
		}
	}
	for _, r := range p.Limits.resources() {
		if r.Number == unix.RLIMIT_AS || r.Number == unix.RLIMIT_NPROC && !above(r) {
			continue
		}
		if err := limit(r.Number, *r.Value); err != nil {
			unmet = append(unmet, notPermitted(r.Name, err))
		}
	}
	return unmet
}

// above says whether a limit is beyond what this process may have.
func above(r resource) bool {
	var own unix.Rlimit
	return unix.Getrlimit(r.Number, &own) == nil && *r.Value > own.Max
}

// limit sets a limit of this process. It must be package syscall's, which would otherwise undo it for open files.
func limit(resource int, value uint64) error {
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: value, Max: value})
}

func notPermitted(limit string, err error) Unmet {
	return Unmet{
		Limit: limit, Why: fmt.Sprintf("it may not be set: %v", err),
		Fix: "run Hozo as root, raise the limit of Hozo itself, or lower it",
	}
}

// send tells the keeper. A keeper that is gone needs no word.
func (r shimReport) send(fd int) {
	data, err := json.Marshal(r)
	if err != nil {
		return // our own types always encode
	}
	_, _ = unix.Write(fd, append(data, '\n'))
}
