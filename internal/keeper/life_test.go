//go:build linux

package keeper_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

func TestNextKeeperEndsLeftoversOfAKilledOne(t *testing.T) {
	t.Parallel()
	k := startKeeper(t, "wait")
	dir := t.TempDir()
	k.spawn("family", "stem", func(s *keeper.Spawn) { s.Notify = true }, dir, "stay")
	k.await(keeper.EventNotify, "family")
	node := birth(k.record("node").PID)
	// A leader that is gone is found by what it left: its run.
	k.spawn("waiter", "wait", nil)
	waiter := birth(k.record("waiter").PID)
	k.cmd.kill()
	for _, m := range append(marks(dir), node, waiter) {
		if !lives(m) {
			t.Errorf("%q ended with the keeper", m)
		}
	}
	if err := syscall.Kill(number(strings.Fields(string(read(t, dir, "stem")))[0]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bare := string(read(t, dir, "bare")) // nothing tells whose it is once its parent is gone
	next := startKeeperIn(t, k.state)
	for _, m := range append(marks(dir), node, waiter) {
		if lives(m) && m != bare {
			t.Errorf("%q outlived the next keeper's start", m)
		}
	}
	if err := syscall.Kill(number(strings.Fields(bare)[0]), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if p, _, err := next.client.List(limited(t)); err != nil || len(p) != 0 {
		t.Errorf("next keeper starts with %v, %v", p, err)
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestLeftoverWithAnotherStartTimeIsSpared(t *testing.T) {
	t.Parallel()
	state, err := os.MkdirTemp("", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(state)
	innocent := startCommand(t, "wait")
	t.Cleanup(innocent.kill)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	ids := fmt.Sprintf(`{"boot_id":%q,"processes":[{"name":"a","run":"R","pid":%d,"start_time":1}]}`,
		strings.TrimSpace(string(boot)), innocent.cmd.Process.Pid)
	if err := os.WriteFile(state+"/keeper.json", []byte(ids), 0o600); err != nil {
		t.Fatal(err)
	}
	startKeeperIn(t, state)
	if innocent.ended() {
		t.Error("a process with a pid that was used again was killed")
	}
}

func TestSecondKeeperIsRefused(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	second := startCommand(t, "keeper", k.state)
	<-second.done
	if !strings.HasPrefix(lastLine(second.output()), "keeper/running ") {
		t.Errorf("second keeper said %q", second.output())
	}
	hello, err := k.client.Hello(limited(t))
	if err != nil || hello.PID != k.cmd.cmd.Process.Pid || hello.Protocol != keeper.ProtocolVersion || hello.Version != "test" {
		t.Errorf("first keeper says %+v, %v", hello, err)
	}
}

func lastLine(s string) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return all[len(all)-1]
}

func TestStateAndSocketsArePrivate(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for path, want := range map[string]os.FileMode{"": 0o700, "keeper.sock": 0o600, "notify.sock": 0o600, "keeper.lock": 0o600} {
		info, err := os.Stat(filepath.Join(k.state, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestConfigurationFaults(t *testing.T) {
	t.Parallel()
	for code, state := range map[string]string{
		"keeper/bad-state":     "relative",
		"keeper/path-too-long": "/" + strings.Repeat("x", 100),
	} {
		if _, err := keeper.New(keeper.Config{State: state}); fault.Code(err) != code {
			t.Errorf("%s: %v", state, err)
		}
	}
	_, err := keeper.Dial(t.Context(), t.TempDir()+"/none.sock")
	if fault.Code(err) != "keeper/not-running" {
		t.Errorf("dial: %v", err)
	}
}

func TestNodeIsStartedAgainAndNothingElseIs(t *testing.T) {
	t.Parallel()
	k := startKeeper(t, "wait")
	service := k.spawn("service", "wait", nil)
	until(t, "node", func() bool {
		p, _, err := k.client.List(limited(t))
		return err == nil && len(p) == 2
	})
	node := k.record("node")
	for range 3 {
		if err := syscall.Kill(node.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := k.await(keeper.EventExited, "node"); e.Process.Run != node.Run || e.Process.Exit.Signal != 9 {
			t.Errorf("got %+v", e)
		}
		var next keeper.Process
		for next = node; next.Run == node.Run; { // the first start may have come after the subscription
			next = k.await(keeper.EventStarted, "node").Process
		}
		node = next
	}
	if now := k.record("service"); now.Run != service.Run || now.Exit != nil {
		t.Errorf("service was touched: %+v", now)
	}
	if _, err := k.trySpawn("node", "wait", nil); fault.Code(err) != "keeper/reserved" {
		t.Errorf("spawn of a node: %v", err)
	}
}

func TestNodeThatCannotStayUpIsStartedLessOften(t *testing.T) {
	t.Parallel()
	k := startKeeper(t, "exit", "0")
	last := k.await(keeper.EventExited, "node").Process.Exit.Time
	for _, least := range []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond} {
		next := k.await(keeper.EventExited, "node").Process
		if pause := next.Exit.Time.Sub(last); pause < least/2 { // the first exit may have come before the subscription
			t.Errorf("started again after %v, want %v", pause, least)
		}
		last = next.Exit.Time
	}
}

func TestTermStopsEverythingTheNodeFirst(t *testing.T) {
	t.Parallel()
	state, err := os.MkdirTemp("", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	k := startKeeperIn(t, state, "orderly", keeper.SocketPath(state))
	dir := t.TempDir()
	k.spawn("service", "wait", nil)
	k.spawn("stubborn", "stem", func(s *keeper.Spawn) { s.Notify = true }, dir, "stay")
	k.await(keeper.EventNotify, "stubborn")
	until(t, "node to be ready", func() bool { return k.record("node").Ready })
	if _, err := k.client.Listen(limited(t), keeper.Listen{Name: "l", Network: "unix", Address: state + "/l.sock"}); err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	service := k.await(keeper.EventExited, "service").Process.Exit
	node := k.await(keeper.EventExited, "node").Process.Exit
	stubborn := k.await(keeper.EventExited, "stubborn").Process.Exit
	if !service.Time.Before(node.Time) || !node.Time.Before(stubborn.Time) || node.Code != 0 {
		t.Errorf("order of ends: service %+v, node %+v, stubborn %+v", service, node, stubborn)
	}
	<-k.client.Done()
	for _, m := range marks(dir) {
		if lives(m) {
			t.Errorf("%q outlives the keeper", m)
		}
	}
	<-k.cmd.done
	if code := k.cmd.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("keeper ended with %d", code)
	}
	for _, name := range []string{"keeper.sock", "notify.sock", "keeper.json", "l.sock"} {
		if _, err := os.Stat(filepath.Join(state, name)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

func TestShutdownEndsAtOnceWhenNothingRuns(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	if err := k.client.Shutdown(limited(t)); err != nil {
		t.Fatal(err)
	}
	<-k.client.Done()
	if _, err := k.client.Hello(limited(t)); err == nil || fault.Code(err) != "" {
		t.Errorf("call after the end: %v", err)
	}
}

func TestBadLinesAreAnsweredOrEnd(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	c, err := net.Dial("unix", keeper.SocketPath(k.state))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewScanner(c)
	for line, want := range map[string]string{
		"nonsense\n":                   `"code":"keeper/bad-request"`,
		`{"id":7,"op":"dance"}` + "\n": `"code":"keeper/unknown-op"`,
		`{"id":7,"op":"spawn"}` + "\n": `"code":"keeper/bad-request"`,
		`{"id":7,"op":"hello"}` + "\n": `"protocol":1`,
	} {
		if _, err := c.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if !in.Scan() || !strings.Contains(in.Text(), want) {
			t.Errorf("%q is answered by %q", line, in.Text())
		}
	}
	long := []byte(strings.Repeat("x", 1<<16))
	for err == nil { // the keeper hangs up on a line without an end
		_, err = c.Write(long)
	}
	if _, err := k.client.Hello(limited(t)); err != nil {
		t.Errorf("others suffer: %v", err)
	}
}

func TestClientIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 8) // one for each caller
	for i := range cap(errs) {
		go func() {
			var err error
			for range 50 {
				if i%2 == 0 {
					_, _, err = k.client.List(ctx)
				} else {
					_, err = k.client.Hello(ctx)
				}
				if err != nil {
					break
				}
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	cancel()
	if _, err := k.client.Hello(ctx); err == nil && ctx.Err() == nil {
		t.Error("a cancelled call is answered")
	}
}
