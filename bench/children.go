package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// children are the processes that a contender started here. Each has a process group of its own, so that Ctrl-C reaches
// only the harness, which then ends them in order.
type children struct {
	dir     string // of their logs
	started []*child
	waiting sync.WaitGroup // one for each process
}

type child struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// start runs a program until stop. attr may be nil.
func (c *children) start(name string, env []string, attr *syscall.SysProcAttr, dir string, argv ...string) error {
	path := filepath.Join(c.dir, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close()                         // the child has its own
	cmd := exec.Command(argv[0], argv[1:]...) // stop ends it, in the right order and by the right signal
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = dir, log, log, attr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	one := &child{name: name, cmd: cmd, log: path, done: make(chan struct{})}
	c.started = append(c.started, one)
	c.waiting.Go(func() { // stop waits for it
		one.err = cmd.Wait()
		close(one.done)
	})
	return nil
}

// pids are the processes started here.
func (c *children) pids() []int {
	var all []int
	for _, one := range c.started {
		all = append(all, one.cmd.Process.Pid)
	}
	return all
}

// alive is nil as long as every process runs; else it names the first that ended and quotes its log.
func (c *children) alive() error {
	for _, one := range c.started {
		select {
		case <-one.done:
			return fmt.Errorf("%s ended (%w): %s", one.name, one.err, tail(one.log))
		default:
		}
	}
	return nil
}

// stop ends the processes in reverse order: politely with sig, and with everything below them after five seconds.
func (c *children) stop(sig syscall.Signal) error {
	var errs []error
	for _, one := range slices.Backward(c.started) {
		below, err := tree([]int{one.cmd.Process.Pid}) // known before its end hands them to init
		if err != nil {
			below = nil // it is gone already
		}
		_ = one.cmd.Process.Signal(sig) // an error means that it is gone
		select {
		case <-one.done:
		case <-time.After(5 * time.Second):
			errs = append(errs, fmt.Errorf("%s did not end within 5s and was killed", one.name))
		}
		for _, p := range below {
			if p.pid != one.cmd.Process.Pid && parentIs(p.pid, p.parent, 1) {
				_ = syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		_ = one.cmd.Process.Kill()
		<-one.done
	}
	c.waiting.Wait()
	c.started = nil
	return errors.Join(errs...)
}

// ended waits for processes that were told to end by their own means, and ends those that do not within d.
func (c *children) ended(d time.Duration) error {
	late := time.After(d)
	for _, one := range c.started {
		select {
		case <-one.done:
		case <-late:
			return errors.Join(fmt.Errorf("%s did not end within %s", one.name, d), c.stop(syscall.SIGTERM))
		}
	}
	c.waiting.Wait()
	c.started = nil
	return nil
}

// parentIs is true when the process lives and still has one of the parents: its number was not given to another meanwhile.
func parentIs(pid int, parents ...int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	p, err := parseStat(string(stat))
	if err != nil {
		return false
	}
	return slices.Contains(parents, p.parent)
}

// tail is the end of a log, for an error.
func tail(path string) string {
	log, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(log[max(0, len(log)-2000):]))
}

// freePort is a loopback port that nobody listens on now.
func freePort(ctx context.Context) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

// poll calls ready every interval until it is true, fails, or ctx ends.
func poll(ctx context.Context, what string, interval time.Duration, ready func() (bool, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		done, err := ready()
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		}
	}
}
