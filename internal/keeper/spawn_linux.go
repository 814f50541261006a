package keeper

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// maxProcesses bounds the records, dead ones included. One host runs some dozens.
	maxProcesses = 1024
	// maxLabelBytes bounds the labels of a process, as JSON.
	maxLabelBytes = 16 << 10
	// maxNameBytes bounds names of processes and sockets; sd_listen_fds allows 255 for the latter.
	maxNameBytes = 255
	// maxReportBytes bounds what the child of a shim says: some limits that are not kept, a sentence each.
	maxReportBytes = 16 << 10

	// busyTime bounds how long a program that is being written is waited for, busyDelay is how often it is looked at.
	busyTime  = 3 * time.Second
	busyDelay = 20 * time.Millisecond

	runPrefix = wire.EnvRun + "="
)

// spawn starts a process and registers it, under the lock that reaping needs.
func (k *Keeper) spawn(s Spawn) (*record, error) {
	r, err := k.spawnOnce(s)
	// A deploy is writing the program, most likely.
	for end := time.Now().Add(busyTime); errors.Is(err, syscall.ETXTBSY) && time.Now().Before(end); {
		timer := time.NewTimer(busyDelay)
		select {
		case <-timer.C:
		case <-k.halt:
			timer.Stop()
			return nil, err
		}
		r, err = k.spawnOnce(s)
	}
	return r, err
}

func (k *Keeper) spawnOnce(s Spawn) (*record, error) {
	if err := checkSpawn(s); err != nil {
		return nil, err
	}
	cred, err := credential(s)
	if err != nil {
		return nil, err
	}
	if s.Argv[0] != k.hello.Executable {
		if err := checkProgram(s.Argv[0]); err != nil {
			return nil, err
		}
	}
	if err := k.free(s.Name); err != nil {
		return nil, err // before the log of the process that has the name is touched
	}
	out, err := newCapture(s.Log, k.log.With("process", s.Name), k.logs)
	if err != nil {
		return nil, failure("log", fmt.Sprintf("log of %s cannot be opened", s.Name),
			"make its folder one that Hozo may write to", err)
	}
	write, err := openPipe(out, cred)
	if err != nil {
		out.close()
		return nil, failure("no-resources", fmt.Sprintf("no pipe for the output of %s", s.Name), noRoom, err)
	}
	notify := ""
	if s.Notify {
		if notify, err = k.notifyAddress(cred); err != nil {
			_ = write.Close() // nothing was written
			out.close()
			return nil, err
		}
	}
	r, report, err := k.fork(s, cred, out, write, notify)
	_ = write.Close() // the child's alone from now on, so that its end is seen
	if err != nil {
		out.close()
		return nil, err
	}
	if report == nil {
		return r, nil
	}
	if err := k.bear(r, report); err != nil {
		return nil, err
	}
	return r, nil
}

// bear waits until the child of a shim has become its program, and says what is known then. If it has not, nothing is
// left of it.
func (k *Keeper) bear(r *record, from *os.File) error {
	report := readReport(from)
	k.mu.Lock()
	r.unmet = append(r.unmet, report.Unmet...)
	if report.Errno == 0 {
		k.bornLocked(r)
		k.mu.Unlock()
		close(r.born)
		return nil
	}
	r.failed = true
	k.mu.Unlock()
	close(r.born)
	<-r.done
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.records[r.spec.Name] == r {
		k.forgetLocked(r)
	}
	return spawnFault(r.spec, syscall.Errno(report.Errno))
}

// readReport reads what the child of a shim says until its exec.
func readReport(from *os.File) shimReport {
	defer from.Close()
	var report shimReport
	for in := json.NewDecoder(io.LimitReader(from, maxReportBytes)); ; {
		var one shimReport
		if in.Decode(&one) != nil {
			return report // its end, or that of a child that was killed meanwhile
		}
		report.Unmet = append(report.Unmet, one.Unmet...)
		report.Errno = max(report.Errno, one.Errno)
	}
}

// bornLocked tells of a process whose program runs.
func (k *Keeper) bornLocked(r *record) {
	k.depositRecord(r)
	k.emitLocked(Event{Kind: EventStarted, Process: k.processLocked(r)})
	k.log.Info("process started", "process", r.spec.Name, "pid", r.pid)
}

// free says whether a name can be used.
func (k *Keeper) free(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.freeLocked(name)
}

func (k *Keeper) freeLocked(name string) error {
	if k.stopping {
		return failure("stopping", "the keeper is stopping", "", nil)
	}
	if _, taken := k.records[name]; taken {
		return failure("name-taken", fmt.Sprintf("a process %q is remembered", name), "forget it once it is dead", nil)
	}
	if len(k.records) >= maxProcesses {
		return failure("too-many", fmt.Sprintf("%d processes are remembered", len(k.records)), "forget dead ones", nil)
	}
	return nil
}

// fork starts the process. When a report comes with it, it is not known yet whether the program runs.
func (k *Keeper) fork(s Spawn, cred *syscall.Credential, out *capture, write *os.File, notify string) (_ *record, report *os.File, _ error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.freeLocked(s.Name); err != nil {
		return nil, nil, err
	}
	listen, err := k.inheritedLocked(s.Listen)
	if err != nil {
		return nil, nil, err
	}
	run := rand.Text()
	files := []uintptr{k.null.Fd(), write.Fd(), write.Fd()}
	for _, l := range listen {
		files = append(files, l.file.Fd())
	}
	stored := k.store.files[s.store()]
	for _, f := range stored {
		files = append(files, uintptr(f.fd))
	}
	program, argv := s.Argv[0], s.Argv
	if program == k.hello.Executable {
		program = ownImage // the platform's parts stay of one version until they are upgraded together
	}
	dir, setUser := s.Dir, cred
	if len(files) > 3 || s.Watchdog > 0 || s.Limits.ownSettings() {
		plan := shimPlan{Report: len(files), Program: program, Limits: s.Limits, Dir: s.Dir}
		if cred != nil {
			plan.User, plan.UID, plan.GID, plan.Groups = true, cred.Uid, cred.Gid, cred.Groups
		}
		text, err := json.Marshal(plan)
		if err != nil {
			return nil, nil, err
		}
		var child *os.File
		if report, child, err = os.Pipe(); err != nil {
			return nil, nil, spawnFault(s, err)
		}
		defer child.Close()
		files = append(files, child.Fd())
		// The link works even if this binary was replaced since.
		program, argv = ownImage, append([]string{"hozo", ShimCommand, string(text)}, s.Argv...)
		dir, setUser = "", nil
	}
	fail := func(err error) (*record, *os.File, error) {
		if report != nil {
			_ = report.Close() // nothing was sent
		}
		return nil, nil, err
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir:   dir,
		Env:   environment(s, run, listen, stored, notify),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: setUser, PidFD: &pidfd},
	}
	r := &record{spec: s, run: run, started: time.Now(), since: Monotonic(), pidfd: -1, capture: out, done: make(chan struct{})}
	// The standby knows of the child before it is born, and holds its output from the first byte.
	key := keyProcess + s.Name
	if err := k.deposit(opPut, key, r.held(), int(out.pipe.Fd())); err != nil {
		return fail(err)
	}
	k.noteLocked(r.identity())
	pid, err := k.forkIn(r, program, argv, attr)
	if err != nil {
		k.withdraw(key)
		k.noteLocked(namedIdentity{Name: s.Name, Run: run, Ended: true})
		return fail(spawnFault(s, err))
	}
	r.pid, r.pidfd = pid, pidfd
	// The child is not reaped while this lock is held, so its entry in /proc is there even if it has exited.
	if p, err := readProc(pid); err == nil {
		r.start = p.start
	} else {
		k.log.Error("start time of a child unknown", "process", s.Name, "pid", pid, "error", err)
	}
	r.tree = newTree(run, identity{pid, r.start})
	r.tree.census = &k.census
	k.depositRecord(r, pidfds(r)...)
	k.records[s.Name] = r
	k.live[pid] = r
	k.noteLocked(r.identity())
	k.matchLine(r)
	k.wg.Go(out.run)
	if report != nil {
		r.born = make(chan struct{})
		return r, report, nil
	}
	k.bornLocked(r)
	return r, nil, nil
}

// openPipe makes the pipe of a capture and returns the end that the child writes to.
func openPipe(out *capture, cred *syscall.Credential) (*os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	// Only our end is non-blocking: a program does not expect its standard output to be.
	err := unix.SetNonblock(fds[0], true)
	if err == nil && cred != nil {
		err = unix.Fchown(fds[1], int(cred.Uid), int(cred.Gid)) // or it could not open /dev/stdout
	}
	out.pipe = os.NewFile(uintptr(fds[0]), "output")
	write := os.NewFile(uintptr(fds[1]), "output")
	if err != nil {
		_ = write.Close() // nothing was written
		return nil, err
	}
	return write, nil
}
