//go:build linux

package keeper_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// roleVar names what a re-executed test binary does instead of testing.
const roleVar = "KEEPER_TEST_ROLE"

// treesVar is the Config.Trees of a keeper in a process of its own.
const treesVar = "KEEPER_TEST_TREES"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keeper.ShimCommand {
		fmt.Fprintln(os.Stderr, keeper.ExecShim(os.Args[2:], os.Environ()))
		os.Exit(127)
	}
	if role := os.Getenv(roleVar); role != "" {
		play, ok := roles()[role]
		if !ok {
			fmt.Fprintln(os.Stderr, "no role", role)
			os.Exit(99)
		}
		os.Exit(play(os.Args[1:]))
	}
	testkit.EndAtOnce()
	goleak.VerifyTestMain(m)
}

// playKeeper keeps the state directory args[0]; the rest is the role and arguments of a node.
func playKeeper(args []string) int {
	cfg := keeper.Config{
		State:   args[0],
		Version: "test",
		Grace:   2 * time.Second,
		Trees:   os.Getenv(treesVar),
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if len(args) > 1 {
		cfg.Node = append([]string{self()}, args[2:]...)
		cfg.NodeEnv = []string{roleVar + "=" + args[1]}
	}
	k, err := keeper.New(cfg)
	if err == nil {
		err = k.Run(context.Background())
	}
	if err != nil {
		fmt.Println(fault.Code(err), err)
		return 1
	}
	return 0
}

// roleOf makes the environment of a child that plays a role.
func roleOf(role string, env ...string) []string {
	return append([]string{roleVar + "=" + role, "GORACE=atexit_sleep_ms=0"}, env...)
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic("test binary has no path: " + err.Error())
	}
	return path
}

// kept is a keeper in a process of its own, for it waits for every child of its process.
type kept struct {
	t      testing.TB
	state  string
	cmd    *command
	client *keeper.Client
	events <-chan keeper.Event
	past   []keeper.Event
	unsure bool // some have lost their parent: nobody may know how they end
}

func startKeeper(t testing.TB, node ...string) *kept {
	t.Helper()
	return startKeeperIn(t, stateFolder(t), node...)
}

func stateFolder(t testing.TB) string {
	t.Helper()
	state, err := os.MkdirTemp("", "keeper") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	return state
}

func startKeeperIn(t testing.TB, state string, node ...string) *kept {
	t.Helper()
	return reach(t, state, startCommand(t, "keeper", append([]string{state}, node...)...))
}

// startKeeperWith starts a keeper with more in its environment.
func startKeeperWith(t *testing.T, env ...string) *kept {
	t.Helper()
	state := stateFolder(t)
	cmd := exec.Command(self(), state)
	cmd.Env = roleOf("keeper", append(env, "PATH="+os.Getenv("PATH"))...)
	return reach(t, state, runCommand(t, cmd))
}

// reach waits until a keeper answers.
func reach(t testing.TB, state string, cmd *command) *kept {
	t.Helper()
	k := &kept{t: t, state: state, cmd: cmd}
	ctx := limited(t)
	until(t, "keeper to answer", func() bool {
		c, err := keeper.Dial(ctx, keeper.SocketPath(state))
		if err != nil {
			if k.cmd.ended() && strings.HasPrefix(lastLine(k.cmd.output()), "keeper/no-cgroup ") {
				t.Skip(lastLine(k.cmd.output()))
			}
			if k.cmd.ended() {
				t.Fatalf("keeper ended: %s", k.cmd.output())
			}
			return false
		}
		k.client = c
		return true
	})
	t.Cleanup(k.stop)
	events, err := k.client.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k.events = events
	return k
}

// stop ends the keeper and shows what it logged if the test failed.
func (k *kept) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := k.client.Shutdown(ctx); err == nil {
		select {
		case <-k.client.Done():
		case <-ctx.Done():
			k.t.Error("keeper did not stop")
		}
	}
	if err := k.client.Close(); err != nil {
		k.t.Error(err)
	}
	k.cmd.end()
	if out := k.cmd.output(); k.t.Failed() || strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic:") {
		k.t.Errorf("keeper said:\n%s", out)
	}
}

// keeper and standby return the pids of the two processes.
func (k *kept) pids() (keeperPID, standbyPID int) {
	k.t.Helper()
	var hello keeper.Hello
	until(k.t, "keeper to answer", func() bool {
		k.redial()
		var err error
		hello, err = k.client.Hello(limited(k.t))
		return err == nil
	})
	return hello.PID, hello.Standby
}

// redial connects again when the connection is lost.
func (k *kept) redial() {
	select {
	case <-k.client.Done():
	default:
		return
	}
	_ = k.client.Close() // it has ended
	until(k.t, "keeper to listen", func() bool {
		c, err := keeper.Dial(limited(k.t), keeper.SocketPath(k.state))
		if err != nil {
			return false
		}
		events, err := c.Events(k.t.Context())
		if err != nil {
			return c.Close() != nil // never: it is asked again
		}
		k.client, k.events = c, events
		return true
	})
}

// killBoth ends keeper and standby at the same instant, as far as either can tell.
func (k *kept) killBoth() {
	k.t.Helper()
	active, standby := k.pids()
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range []int{active, standby} {
			if err := syscall.Kill(pid, sig); err != nil {
				k.t.Fatal(err)
			}
		}
	}
	<-k.cmd.done
}

// spawn starts a role under a name and fails the test when that does not work.
func (k *kept) spawn(name, role string, change func(*keeper.Spawn), args ...string) keeper.Process {
	k.t.Helper()
	p, err := k.trySpawn(name, role, change, args...)
	if err != nil {
		k.t.Fatal(err)
	}
	return p
}

func (k *kept) trySpawn(name, role string, change func(*keeper.Spawn), args ...string) (keeper.Process, error) {
	s := keeper.Spawn{
		Name: name,
		Argv: append([]string{self()}, args...),
		Env:  roleOf(role),
		Log:  keeper.Log{Path: k.state + "/logs/" + name + ".log"},
	}
	if change != nil {
		change(&s)
	}
	return k.client.Spawn(limited(k.t), s)
}

// await returns the next event of a kind for a name, be it past already; each is returned once.
func (k *kept) await(kind, name string) keeper.Event {
	k.t.Helper()
	for i, e := range k.past {
		if e.Kind == kind && e.Process.Name == name {
			k.past = append(k.past[:i:i], k.past[i+1:]...)
			return e
		}
	}
	ctx := limited(k.t)
	for {
		select {
		case e, ok := <-k.events:
			if !ok {
				k.t.Fatalf("events ended before %s of %s", kind, name)
			}
			if e.Kind == kind && e.Process.Name == name {
				return e
			}
			k.past = append(k.past, e)
		case <-ctx.Done():
			k.t.Fatalf("no %s of %s", kind, name)
		}
	}
}

func (k *kept) log(name string) string {
	k.t.Helper()
	data, err := os.ReadFile(k.state + "/logs/" + name + ".log")
	if err != nil {
		k.t.Fatal(err)
	}
	return string(data)
}

// limited is a context for one wait.
func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until waits for something in another process that sends no event.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(20 * time.Second)
	defer end.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("waited too long for %s", what)
		}
	}
}
