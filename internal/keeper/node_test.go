//go:build linux

package keeper_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

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
