//go:build linux

package supervisord

import (
	"errors"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

const (
	// stopReportEvery is how often the log says that a process is waited for.
	stopReportEvery = 2 * time.Second
	// calmRun is how long a run must last to be restarted without any delay for ever. Supervisor looks once a second, so
	// it never restarts faster; a program that ends at once and always restarts must not take the whole machine either.
	calmRun = time.Second
	// hastyRestarts is how many shorter runs in a row are restarted without a delay all the same.
	hastyRestarts = 5
)

// process is one process of a group and its life. The loop owns it.
type process struct {
	d     *Daemon
	group *group
	conf  *conf.Program

	state      State
	pid        int  // 0 when there is none
	reaped     bool // the kernel has given its pid back; only its end is still to be told
	killing    bool
	backoff    int       // failed starts in a row
	delay      time.Time // of the next start (BACKOFF) or the next kill (STOPPING)
	started    time.Time // zero: never
	stopped    time.Time
	reported   time.Time // last "waiting for x to stop"
	hasty      int       // short runs in a row
	exitStatus int
	spawnErr   string

	channels channels
	listener *listener // of an event listener only
	socket   *fcgiLease
}

// stdoutPath and stderrPath are where the channels are logged, "" for nowhere.
func (p *process) stdoutPath() string { return p.group.logPath(p.conf, "stdout") }
func (p *process) stderrPath() string { return p.group.logPath(p.conf, "stderr") }

// change moves the process to another state and tells the listeners.
func (p *process) change(to State, expected bool) {
	from := p.state
	if from == to {
		return
	}
	p.state = to
	if to == Backoff {
		p.backoff++
		p.delay = time.Now().Add(time.Duration(p.backoff) * time.Second)
	}
	p.d.notify(stateEvent(p, from, expected))
}

// spawn starts the process. Whatever goes wrong leaves it in BACKOFF with spawnErr saying why.
func (p *process) spawn() {
	if p.pid != 0 {
		p.d.log.warn("process '%s' already running", p.conf.Name)
		return
	}
	p.killing, p.spawnErr, p.exitStatus = false, "", 0
	p.started = time.Now()
	if p.group.socket != nil {
		lease, err := p.group.socket.lease()
		if err != nil {
			p.change(Starting, true)
			p.spawnFailed("cannot open socket for '" + p.conf.Name + "': " + err.Error())
			return
		}
		p.socket = lease
	}
	p.change(Starting, true)
	if why := p.launch(); why != "" {
		p.releaseSocket()
		p.spawnFailed(why)
	}
}

func (p *process) spawnFailed(why string) {
	p.spawnErr = why
	p.d.log.info("spawnerr: %s", why)
	p.change(Backoff, true)
}

// launch makes the child, or says why not.
func (p *process) launch() (why string) {
	cmd, bad := findCommand(p.conf)
	if bad != nil {
		return bad.text
	}
	files, err := p.openChannels()
	if err != nil {
		if errors.Is(err, unix.EMFILE) {
			return "too many open files to spawn '" + p.conf.Name + "'"
		}
		return "unknown error making dispatchers for '" + p.conf.Name + "': " + errnoName(err)
	}
	defer closeAll(files)
	l := &launch{
		command: cmd,
		env:     p.environment(),
		dir:     p.conf.Directory,
		umask:   p.conf.Umask,
		files:   [3]uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		uid:     p.conf.UID,
	}
	if l.uid >= 0 {
		l.cred, l.uidProblem = credentialFor(l.uid)
	}
	pid, err := p.d.spawner.spawn(l)
	if err != nil {
		p.channels.close()
		p.channels = channels{}
		if errors.Is(err, unix.EAGAIN) {
			return "Too many processes in process table to spawn '" + p.conf.Name + "'"
		}
		return "unknown error during fork for '" + p.conf.Name + "': " + errnoName(err)
	}
	p.pid, p.reaped = pid, false
	p.d.children[pid] = p
	p.d.log.info("spawned: '%s' with pid %d", p.conf.Name, pid)
	p.channels.start(p.d)
	return ""
}

// closeAll closes the child's ends. The socket of an fcgi program is among them as a duplicate.
func closeAll(files [3]*os.File) {
	for i, f := range files {
		if f != nil && !slices.Contains(files[:i], f) {
			f.Close()
		}
	}
}

// environment is the daemon's with the variables of Supervisor and of the program laid over it.
func (p *process) environment() []string {
	env := environMap(os.Environ())
	env["SUPERVISOR_ENABLED"] = "1"
	url := p.conf.ServerURL
	if url == "" {
		url = p.d.conf.ServerURL()
	}
	if url != "" {
		env["SUPERVISOR_SERVER_URL"] = url
	}
	env["SUPERVISOR_PROCESS_NAME"] = p.conf.Name
	env["SUPERVISOR_GROUP_NAME"] = p.group.conf.Name
	maps.Copy(env, p.conf.Environment)
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// stop asks the process to end. The error is told to the client.
func (p *process) stop() error {
	p.reported = time.Time{}
	return p.kill(p.conf.StopSignal)
}

// stopReport logs that the process is waited for, not too often.
func (p *process) stopReport() {
	if p.state == Stopping && time.Since(p.reported) > stopReportEvery {
		p.d.log.info("waiting for %s to stop", p.conf.Name)
		p.reported = time.Now()
	}
}

// giveUp ends the retries.
func (p *process) giveUp() {
	p.delay, p.backoff = time.Time{}, 0
	p.change(Fatal, true)
}

// kill sends a signal that is meant to end the process, and waits stopwaitsecs from now before the next.
func (p *process) kill(sig syscall.Signal) error {
	name := p.conf.Name
	if p.state == Backoff {
		// A start that does not succeed must not hold up a stop until the retries are used up.
		p.d.log.debug("Attempted to kill %s, which is in BACKOFF state.", name)
		p.change(Stopped, true)
		return nil
	}
	if p.pid == 0 {
		err := errors.New("attempted to kill " + name + " with sig " + signalName(sig) + " but it wasn't running")
		p.d.log.debug("%v", err)
		return err
	}
	asGroup := p.conf.StopAsGroup
	if p.state == Stopping {
		asGroup = p.conf.KillAsGroup // the second signal is the one that kills
	}
	words := ""
	if asGroup {
		words = "process group "
	}
	p.d.log.debug("killing %s (pid %d) %swith signal %s", name, p.pid, words, signalName(sig))
	p.killing = true
	p.delay = time.Now().Add(time.Duration(p.conf.StopWaitSecs) * time.Second)
	p.change(Stopping, true)
	target := p.pid
	if asGroup {
		target = -target
	}
	if err := p.send(target, sig); err != nil {
		p.change(Unknown, true)
		p.killing, p.delay = false, time.Time{}
		return err
	}
	return nil
}

// signal sends a signal that is not meant to end the process.
func (p *process) signal(sig syscall.Signal) error {
	name := p.conf.Name
	if p.pid == 0 {
		err := errors.New("attempted to send " + name + " sig " + signalName(sig) + " but it wasn't running")
		p.d.log.debug("%v", err)
		return err
	}
	p.d.log.debug("sending %s (pid %d) sig %s", name, p.pid, signalName(sig))
	if err := p.send(p.pid, sig); err != nil {
		p.change(Unknown, true)
		return err
	}
	return nil
}

// send signals a process or, negative, its group. One that has just ended by itself is no error. Its pid is not used
// once it has been reaped, for it may be another's by then.
func (p *process) send(target int, sig syscall.Signal) error {
	err := error(unix.ESRCH)
	if !p.reaped {
		err = unix.Kill(target, sig)
	}
	switch err {
	case nil:
		return nil
	case unix.ESRCH:
		p.d.log.debug("unable to signal %s (pid %d), it probably just exited on its own", p.conf.Name, p.pid)
		return nil
	default:
		p.d.log.critical("unknown problem killing %s (%d):%v", p.conf.Name, p.pid, err)
		return errors.New("unknown problem killing " + p.conf.Name + ": " + err.Error())
	}
}

// finish takes the end of the child, after all its output has been read.
func (p *process) finish(ws syscall.WaitStatus) {
	code, text := exitText(ws)
	ran := p.stopped.Sub(p.started)
	expected := slices.Contains(p.conf.ExitCodes, code)
	name := p.conf.Name
	switch {
	case p.killing:
		p.killing, p.delay, p.exitStatus = false, time.Time{}, code
		p.change(Stopped, true)
		p.logEnd(expected, "stopped: %s (%s)", name, text)
	case p.state == Starting && ran < p.startTime():
		p.exitStatus = 0
		p.spawnErr = "Exited too quickly (process log may have details)"
		p.change(Backoff, true)
		p.logEnd(false, "exited: %s (%s; not expected)", name, text)
	default:
		p.delay, p.backoff, p.exitStatus = time.Time{}, 0, code
		if p.state == Starting {
			p.change(Running, true)
		}
		if ran < calmRun {
			p.hasty++
		} else {
			p.hasty = 0
		}
		if expected {
			p.change(Exited, true)
			p.logEnd(true, "exited: %s (%s; expected)", name, text)
		} else {
			p.spawnErr = badExit(code)
			p.change(Exited, false)
			p.logEnd(false, "exited: %s (%s; not expected)", name, text)
		}
	}
	p.pid, p.reaped = 0, false
	p.channels.close()
	p.channels = channels{}
	p.releaseSocket()
	if p.listener != nil {
		if e := p.listener.died(); e != nil {
			p.group.pool.accept(e, true)
		}
	}
}

func (p *process) logEnd(expected bool, format string, args ...any) {
	if expected {
		p.d.log.info(format, args...)
	} else {
		p.d.log.warn(format, args...)
	}
}

func (p *process) releaseSocket() {
	if p.socket != nil {
		p.socket.release()
		p.socket = nil
	}
}

func (p *process) startTime() time.Duration { return time.Duration(p.conf.StartSecs) * time.Second }
