package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// childEnv names the program that a re-executed test binary is to be.
const childEnv = "HOZO_TESTKIT_CHILD"

// Program is something that the test binary can be instead of a test run.
type Program struct {
	name string
	run  func()
}

// Child makes a Program for Main: Start and Command re-execute the test binary as run under name. The process ends with
// status 0 when run returns.
func Child(name string, run func()) Program { return Program{name, run} }

// Main is the body of TestMain: it becomes the child that it was re-executed as, or runs the tests and then fails when
// they left goroutines behind. It removes what Build has built. It does not return.
//
//	func TestMain(m *testing.M) { testkit.Main(m, testkit.Child("worker", worker)) }
func Main(m *testing.M, children ...Program) {
	name := os.Getenv(childEnv)
	if name == "" {
		EndAtOnce()
		goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
			built.remove()
			os.Exit(code)
		}))
	}
	for _, c := range append(children, Child(brokerChild, runBrokerChild)) {
		if c.name == name {
			c.run()
			os.Exit(0)
		}
	}
	fmt.Fprintf(os.Stderr, "testkit: no child is called %q\n", name)
	os.Exit(2)
}

// EndAtOnce has the children of a test binary with the race detector end when they end: its default is to sleep for a
// second first. Main calls it.
func EndAtOnce() {
	const name = "GORACE"
	if os.Getenv(name) == "" {
		_ = os.Setenv(name, "atexit_sleep_ms=0") // it fails only for a bad name
	}
}

// Command prepares the test binary to run as the child called name; env is added to the environment. The child leads a
// process group of its own.
func Command(t testing.TB, name string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("find the test binary: %v", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), childEnv+"="+name), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// ChildEnv is the environment entry that makes the test binary the child called name, for children that somebody else
// starts (a keeper, a supervisor).
func ChildEnv(name string) string { return childEnv + "=" + name }

// Process is a running child.
type Process struct {
	PID  int
	Done <-chan struct{} // closed when it has ended and was waited for

	cmd  *exec.Cmd
	mu   sync.Mutex
	err  error
	tail *tail
}

// Start runs the child called name. It is killed at the end of t if it runs then; its output is shown when t fails.
func Start(t testing.TB, name string, env ...string) *Process {
	t.Helper()
	cmd := Command(t, name, env...)
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start child %s: %v", name, err)
	}
	done := make(chan struct{})
	p := &Process{PID: cmd.Process.Pid, Done: done, cmd: cmd, tail: out}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	})
	t.Cleanup(func() {
		_ = syscall.Kill(-p.PID, syscall.SIGKILL) // most often it is gone already
		wg.Wait()
		if t.Failed() {
			t.Logf("output of child %s:\n%s", name, out)
		}
	})
	return p
}

// Signal sends sig to the child.
func (p *Process) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal child %d: %v", p.PID, err)
	}
}

// Kill sends SIGKILL and waits until the child is gone.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGKILL)
	Wait(t, p.Done)
}

// Err is how the child ended, as exec.Cmd.Wait tells it; call it after Done.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Output is what the child has written so far, the last 64 KiB of it.
func (p *Process) Output() string { return p.tail.String() }

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 64 << 10

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	if extra := len(w.buf) - tailBytes; extra > 0 {
		w.buf = append(w.buf[:0], w.buf[extra:]...)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ToValidUTF8(string(w.buf), "?")
}
