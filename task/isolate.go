package task

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// DefaultIsolatedTasks is how many calls a child does before another takes its place: so many that the start of a process,
// some ten milliseconds, is small beside them, and few enough for most leaks.
const DefaultIsolatedTasks = 1000

const (
	// childGrace is how long a handler whose context has ended may take to return before its child is killed.
	childGrace = 2 * time.Second

	// childLook is how often the memory of a child at work is looked at.
	childLook = 100 * time.Millisecond
)

// Isolation has handlers run in child processes: what a handler does to its process (a fatal error, os.Exit, a leak, memory
// without end, a loop that heeds no context) it does to a child, and the tasks of others go on. The zero Isolation is ready.
//
// A child is the service's own program, started again with the same arguments: what main does before hozo.Main, or before
// Worker.Run, it does too; of the service's parts it runs the handler, what With makes and the Funcs. It does one call of the
// handler after the other; there are as many children as handlers at once, started when they are needed. A task costs two
// pipes and the encoding of its arguments and result more. A child that dies fails the attempt with task/crashed, and when
// it is the attempt number Crashes or a later one, its task is dead.
type Isolation struct {
	Tasks int // calls after which a child is replaced; default 1000

	// MemoryBytes bounds the resident memory of a child, on Linux: one that has more is replaced after its call, and one
	// that has twice as much is killed in it. Zero bounds nothing.
	MemoryBytes int64
}

// isolatedKind is read once, because serveParent takes it out of the environment: what a handler starts is no child of ours.
var isolatedKind = os.Getenv(wire.EnvTaskChild)

// IsolatedKind returns the kind whose tasks this process does for another one, its parent; "" when it is no such child.
func IsolatedKind() string { return isolatedKind }

// children are the children of a pool.
type children struct {
	kind    string
	cfg     Isolation
	crashes int // attempts after which a crash is the last
	log     *slog.Logger

	mu   sync.Mutex
	idle []*child
}

func newChildren(kind string, cfg Isolation, crashes int, log *slog.Logger) *children {
	cfg.Tasks = cmp.Or(max(cfg.Tasks, 0), DefaultIsolatedTasks)
	return &children{kind: kind, cfg: cfg, crashes: crashes, log: log}
}

// do runs the handler in a child.
func (c *children) do(ctx context.Context, leases []*lease, outcomes []outcome) {
	one, err := c.take()
	if err == nil {
		err = one.call(ctx, leases, outcomes, c.cfg.MemoryBytes)
		c.give(one, err)
	}
	if err == nil {
		return
	}
	for i, l := range leases {
		switch {
		case ctx.Err() != nil: // it was killed for that
			outcomes[i].err = ctx.Err()
		case fault.Code(err) == CodeCrashed && l.failed()+1 >= c.crashes:
			outcomes[i].err = Reject(err)
		default:
			outcomes[i].err = err
		}
	}
}

// take returns a child that has nothing to do.
func (c *children) take() (*child, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		one := c.idle[n-1]
		c.idle = c.idle[:n-1]
		return one, nil
	}
	return startChild(c.kind)
}

// give takes a child back, or ends it.
func (c *children) give(one *child, err error) {
	one.calls++
	if err == nil && one.calls < c.cfg.Tasks && (c.cfg.MemoryBytes <= 0 || residentBytes(one.pid()) <= c.cfg.MemoryBytes) {
		c.mu.Lock()
		c.idle = append(c.idle, one)
		c.mu.Unlock()
		return
	}
	one.end()
}

// stop ends the children, which have nothing to do.
func (c *children) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.idle {
		one.end()
	}
	c.idle = nil
}

// child is a process that runs the handler. It is used by one goroutine at a time.
type child struct {
	cmd     *exec.Cmd
	in      *os.File // to it; its end tells the child to end
	out     *os.File // from it
	write   *json.Encoder
	answers chan answer // closed when the child says nothing more
	reader  sync.WaitGroup
	calls   int
}

// inherited are the parts of the environment that belong to the parent alone: its sockets and its word to the platform.
var inherited = []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}

func startChild(kind string) (*child, error) {
	failed := func(err error) error {
		return &fault.Error{Code: CodeCrashed, What: "no child process can be started", Where: "task " + kind, Err: err, Fix: "see the limits of the service: pids, nofile, memory"}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, failed(err)
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, failed(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, failed(errors.Join(err, theirIn.Close(), in.Close()))
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(inherited, name)
	})
	cmd.Env = append(cmd.Env, wire.EnvTaskChild+"="+kind)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its own children end with it
	err = cmd.Start()
	_, _ = theirIn.Close(), theirOut.Close() // the child has them
	if err != nil {
		return nil, failed(errors.Join(err, in.Close(), out.Close()))
	}
	c := &child{cmd: cmd, in: in, out: out, write: json.NewEncoder(in), answers: make(chan answer)}
	c.reader.Go(func() {
		defer close(c.answers)
		for read := json.NewDecoder(out); ; {
			var a answer
			if read.Decode(&a) != nil {
				return // it has ended, or speaks nonsense: both are a crash
			}
			c.answers <- a
		}
	})
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// call has the child run the handler for some tasks. After an error the child is of no more use.
func (c *child) call(ctx context.Context, leases []*lease, outcomes []outcome, memory int64) error {
	q := question{}
	if deadline, ok := ctx.Deadline(); ok {
		q.Deadline = deadline
	}
	for _, l := range leases {
		q.Tasks = append(q.Tasks, carry(l))
	}
	if err := c.write.Encode(q); err != nil {
		return c.crashed(ctx)
	}
	ended := ctx.Done()
	var kill <-chan time.Time
	var look <-chan time.Time
	if memory > 0 {
		tick := time.NewTicker(childLook)
		defer tick.Stop()
		look = tick.C
	}
	for {
		select {
		case a, ok := <-c.answers:
			switch {
			case !ok:
				return c.crashed(ctx)
			case a.Progress != nil:
				if i := a.Progress.Task; i >= 0 && i < len(leases) {
					leases[i].report(a.Progress.Percent, a.Progress.Note)
				}
				continue
			case len(a.Outcomes) != len(leases):
				return c.crashed(ctx)
			}
			for i, o := range a.Outcomes {
				outcomes[i] = o.outcome(ctx)
			}
			return nil
		case <-ended:
			ended = nil
			timer := time.NewTimer(childGrace)
			defer timer.Stop()
			kill = timer.C
			if c.write.Encode(question{Cancel: true}) != nil {
				return c.crashed(ctx)
			}
		case <-kill:
			c.kill()
			return c.crashed(ctx)
		case <-look:
			if residentBytes(c.pid()) > 2*memory {
				c.kill()
				return c.crashed(ctx)
			}
		}
	}
}

// crashed ends what is left of the child and says how it ended.
func (c *child) crashed(ctx context.Context) error {
	how := c.end()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &fault.Error{
		Code: CodeCrashed, What: "the process that ran the handler has ended: " + how, Where: fmt.Sprintf("process %d", c.pid()),
		Fix: "look in the service's log for its last words",
	}
}

func (c *child) kill() { _ = syscall.Kill(-c.pid(), syscall.SIGKILL) } // it may have ended

// end ends the child if it has not ended and says how it did. It may be called again.
func (c *child) end() string {
	if c.cmd.ProcessState != nil {
		return c.cmd.ProcessState.String()
	}
	_ = c.in.Close() // that is how it is told
	timer := time.AfterFunc(childGrace, c.kill)
	for range c.answers { // until it has closed its end
	}
	c.reader.Wait()
	_ = c.cmd.Wait() // ProcessState says more
	timer.Stop()
	c.kill() // what it has left behind
	_ = c.out.Close()
	return c.cmd.ProcessState.String()
}
