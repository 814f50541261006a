//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// A container's first process inherits every orphan in it. The keeper reaps them all and mixes up none of its own
// children's statuses with theirs. HOZO_ORPHANS makes it the 10,000 that a release is tried with.
func TestFirstProcessOfAContainerReapsOrphans(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a pid namespace needs root")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("unshare of util-linux is not installed")
	}
	all := 600
	if text := os.Getenv("HOZO_ORPHANS"); text != "" {
		if all, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	state := stateFolder(t)
	cmd := exec.Command(unshare, "--pid", "--fork", "--mount-proc", "--kill-child", self(), state)
	cmd.Env = roleOf("keeper", "PATH="+os.Getenv("PATH"))
	k := reach(t, state, runCommand(t, cmd))
	if hello, err := k.client.Hello(limited(t)); err != nil || hello.Standby != 1 {
		t.Fatalf("it is not the first process: %+v, %v", hello, err)
	}
	const litter = 50 // orphans of one process
	for i := range all / litter {
		k.spawn(fmt.Sprintf("mother%d", i), "orphans", nil, strconv.Itoa(litter), strconv.Itoa(i%100))
		k.spawn(fmt.Sprintf("own%d", i), "exit", nil, strconv.Itoa((i+50)%100))
	}
	for i := range all / litter {
		for name, code := range map[string]int{"mother": i % 100, "own": (i + 50) % 100} {
			name = fmt.Sprintf("%s%d", name, i)
			if exit := k.await(keeper.EventExited, name).Process.Exit; exit.Code != code || exit.Signal != 0 || len(exit.Survivors) > 0 {
				t.Errorf("%s ended with %+v, want code %d", name, *exit, code)
			}
			if err := k.client.Forget(limited(t), name); err != nil {
				t.Error(err)
			}
		}
	}
	until(t, "every orphan to be reaped", func() bool { return zombies(t, cmd) == 0 })
	t.Logf("%d orphans", all)
}

// zombies counts those among the descendants of a command.
func zombies(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	children := map[int][]int{}
	dead := map[int]bool{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var pid, parent int
		var name, state string
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(stat), &pid, &name, &state, &parent); err != nil {
			continue // a name with a blank: none of ours
		}
		children[parent] = append(children[parent], pid)
		dead[pid] = state == "Z"
	}
	count := 0
	var look func(pid int)
	look = func(pid int) {
		for _, child := range children[pid] {
			if dead[child] {
				count++
			}
			look(child)
		}
	}
	look(cmd.Process.Pid)
	return count
}
