//go:build linux

package keeper_test

import (
	"bytes"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// command is a re-executed test binary that a test itself starts.
type command struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
	wg  sync.WaitGroup
}

func startCommand(t testing.TB, role string, args ...string) *command {
	t.Helper()
	cmd := exec.Command(self(), args...)
	cmd.Env = append(roleOf(role), "PATH="+os.Getenv("PATH"))
	return runCommand(t, cmd)
}

func runCommand(t testing.TB, cmd *exec.Cmd) *command {
	t.Helper()
	c := &command{cmd: cmd, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = c, c
	c.cmd.WaitDelay = 5 * time.Second // in case something inherited the pipe
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.wg.Go(func() {
		_ = c.cmd.Wait() // the state is looked at
		close(c.done)
	})
	t.Cleanup(c.end)
	return c
}

// Write collects output.
func (c *command) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *command) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

func (c *command) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// kill is kill -9.
func (c *command) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	c.wg.Wait()
}

// end gives a process that was asked to stop a moment, then kills it.
func (c *command) end() {
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		_ = c.cmd.Process.Kill() // it may have ended just now
	}
	c.wg.Wait()
}
