//go:build linux

package keeper_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// A pid that is used again is never signalled. The test needs a pid namespace of its own, where it chooses the pid of
// the next process; its init is playReuse.
func TestDecoyOnAReusedPIDIsNeverSignalled(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a pid namespace with a /proc of its own needs root")
	}
	for _, scene := range []string{"foreign", "leftover"} {
		t.Run(scene, func(t *testing.T) {
			t.Parallel()
			for playReuseOnce(t, scene) == pidTaken {
				t.Log("a thread took the pid that the decoy was to have: once more")
			}
		})
	}
}

// pidTaken is how playReuse exits when it could not give the pid to the decoy.
const pidTaken = 3

func playReuseOnce(t *testing.T, scene string) (status int) {
	t.Helper()
	state, err := os.MkdirTemp("", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(state)
	cmd := exec.CommandContext(t.Context(), self(), scene, state, t.TempDir())
	cmd.Env = append(roleOf("reuse"), "PATH="+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if status = cmd.ProcessState.ExitCode(); status == pidTaken {
		return status
	}
	if err != nil || !strings.HasSuffix(string(out), "the decoy lives\n") {
		t.Errorf("%v\n%s", err, out)
	}
	return status
}

// playReuse is the init of a pid namespace. It has a process end unseen by its keeper, gives its pid to another one, and
// has a keeper act on the first. args: the scene, the keeper's state, a folder.
func playReuse(args []string) int {
	scene, state, dir := args[0], args[1], args[2]
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	check(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	check(syscall.Mount("proc", "/proc", "proc", 0, ""))
	start := func(role string, args ...string) *exec.Cmd {
		cmd := exec.Command(self(), args...)
		cmd.Env, cmd.Stderr = roleOf(role), os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as services have it
		check(cmd.Start())
		return cmd
	}
	first := start("keeper", state)
	k := &inside{state: state}
	k.await("the keeper", func() bool { return k.dial() == nil })
	p, err := k.client.Spawn(k.ctx(), keeper.Spawn{Name: "a", Argv: []string{self(), filepath.Join(dir, "a"), "3"}, Env: roleOf("tell")})
	check(err)
	hello, err := k.client.Hello(k.ctx())
	check(err)
	signal := func(pid int, sig syscall.Signal) { check(syscall.Kill(pid, sig)) }

	if scene == "foreign" {
		// The service loses its parent, so that this init is the one to reap it.
		signal(hello.PID, syscall.SIGKILL)
		k.await("another keeper", func() bool { hello, err = k.hello(); return err == nil })
		lost := hello.Standby
		signal(lost, syscall.SIGKILL)
		_ = first.Wait() // killed
		k.await("the last keeper", func() bool {
			hello, err = k.hello()
			return err == nil && hello.Standby != lost && hello.Standby != 0
		})
		signal(hello.PID, syscall.SIGSTOP) // it sees nothing
	} else {
		for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			signal(hello.PID, sig)
			signal(hello.Standby, sig)
		}
		_ = first.Wait() // killed
	}
	signal(p.PID, syscall.SIGKILL)
	k.await("the service to be reaped", func() bool {
		_, _ = syscall.Wait4(p.PID, nil, syscall.WNOHANG, nil)
		return syscall.Kill(p.PID, 0) == syscall.ESRCH
	})
	// The next process or thread of the namespace gets the pid. It may be one that a Go runtime starts in between.
	check(os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(p.PID-1)), 0o600))
	decoy := start("wait")
	if decoy.Process.Pid != p.PID {
		return pidTaken
	}
	if scene == "foreign" {
		// What is asked before the keeper has looked must not reach the decoy either.
		for _, group := range []bool{true, false} {
			go func() { _ = k.client.Signal(k.ctx(), "a", syscall.SIGKILL, group) }()
		}
		signal(hello.PID, syscall.SIGCONT)
		_ = k.client.Kill(k.ctx(), "a") // it may have seen the end already
		k.await("the end of the service", func() bool {
			all, _, err := k.client.List(k.ctx())
			return err == nil && len(all) == 1 && all[0].Exit != nil
		})
	} else {
		start("keeper", state)
		k.await("the next keeper", func() bool { _, err := k.hello(); return err == nil })
	}
	if birth(decoy.Process.Pid) == "" {
		fmt.Fprintln(os.Stderr, "the decoy was killed")
		return 1
	}
	check(k.client.Shutdown(k.ctx()))
	<-k.client.Done()
	if birth(decoy.Process.Pid) == "" {
		fmt.Fprintln(os.Stderr, "the decoy was killed by the shutdown")
		return 1
	}
	fmt.Println("the decoy lives")
	return 0 // and the namespace ends with its init
}

// inside is a client of a keeper outside of a test.
type inside struct {
	state  string
	client *keeper.Client
}

func (k *inside) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func (k *inside) dial() error {
	c, err := keeper.Dial(k.ctx(), keeper.SocketPath(k.state))
	if err == nil {
		k.client = c
	}
	return err
}

func (k *inside) hello() (keeper.Hello, error) {
	select {
	case <-k.client.Done():
		if err := k.dial(); err != nil {
			return keeper.Hello{}, err
		}
	default:
	}
	return k.client.Hello(k.ctx())
}

func (k *inside) await(what string, done func() bool) {
	for end := time.Now().Add(20 * time.Second); !done(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(end) {
			panic("waited too long for " + what)
		}
	}
}
