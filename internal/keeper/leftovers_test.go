//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
	k.killBoth()
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

func read(t testing.TB, dir, name string) []byte {
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
