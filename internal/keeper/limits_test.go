//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

// shown is what a program sees of its own limits, by /proc.
func shown(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "Max ") {
			all[strings.TrimSpace(line[:26])] = strings.Join(strings.Fields(line[26:])[:2], " ")
		}
	}
	return all
}

func checkLimits(t *testing.T, text string) {
	t.Helper()
	got := shown(text)
	for name, want := range map[string]string{
		"Max open files": "77 77", "Max core file size": "0 0", "Max file size": "1048576 1048576",
		"Max stack size": "4194304 4194304", "Max locked memory": "65536 65536", "Max address space": "8589934592 8589934592",
		"Max processes": "5000 5000",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func resourceLimits() keeper.Limits {
	return keeper.Limits{
		Nofile: new(uint64(77)), Core: new(uint64(0)), FSize: new(uint64(1 << 20)), Stack: new(uint64(4 << 20)),
		Memlock: new(uint64(64 << 10)), AS: new(uint64(8 << 30)), NProc: new(uint64(5000)),
	}
}

func TestProgramRunsWithinItsLimitsFromTheStart(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("cat", "", func(s *keeper.Spawn) {
		s.Argv = []string{"/bin/cat", "/proc/self/limits", "/proc/self/oom_score_adj", "/proc/self/stat"}
		s.Limits = resourceLimits()
		s.Limits.Nice, s.Limits.OOMScoreAdj = new(7), new(300)
	})
	p := k.await(keeper.EventExited, "cat").Process
	if p.Exit.Code != 0 || len(p.Unmet) > 0 {
		t.Errorf("%+v", p)
	}
	text := k.log("cat")
	checkLimits(t, text)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if adj := lines[len(lines)-2]; adj != "300" {
		t.Errorf("oom_score_adj is %s", adj)
	}
	stat := lines[len(lines)-1]
	if nice := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])[16]; nice != "7" {
		t.Errorf("nice is %s", nice)
	}
}

// Limits may need more rights than the service has; its user is changed after them.
func TestLimitsHoldForAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("another user needs root")
	}
	k := startKeeper(t)
	k.spawn("cat", "", func(s *keeper.Spawn) {
		s.Argv = []string{"/bin/cat", "/proc/self/limits", "/proc/self/oom_score_adj", "/proc/self/status"}
		s.Dir, s.UID, s.GID, s.Groups = "/", new(uint32(65534)), new(uint32(65533)), []uint32{7, 8}
		s.Limits = resourceLimits()
		s.Limits.Nice, s.Limits.OOMScoreAdj = new(-7), new(300)
	})
	p := k.await(keeper.EventExited, "cat").Process
	if p.Exit.Code != 0 || len(p.Unmet) > 0 {
		t.Errorf("%+v", p)
	}
	text := k.log("cat")
	checkLimits(t, text)
	for _, want := range []string{"\n300\n", "\nUid:\t65534\t65534\t65534\t65534\n", "\nGid:\t65533\t65533\t65533\t65533\n", "\nGroups:\t7 8 \n", "\nCapEff:\t0000000000000000\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestProgramBeyondItsMemoryIsKilledAndItsSiblingsLive(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	sibling := k.spawn("sibling", "wait", nil)
	p := k.spawn("glutton", "eat", func(s *keeper.Spawn) { s.Limits.Memory = 64 << 20 }, "1024")
	if len(p.Unmet) > 0 {
		t.Skip(p.Unmet[0])
	}
	exit := k.await(keeper.EventExited, "glutton").Process.Exit
	if exit.Signal != int(syscall.SIGKILL) || !exit.OOM {
		t.Errorf("exit %+v", *exit)
	}
	if birth(sibling.PID) == "" {
		t.Error("the sibling died as well")
	}
	k.spawn("modest", "eat", func(s *keeper.Spawn) { s.Limits.Memory = 256 << 20 }, "16")
	if exit := k.await(keeper.EventExited, "modest").Process.Exit; exit.Code != 0 || exit.OOM {
		t.Errorf("exit within the limit: %+v", *exit)
	}
	// Somebody else's kill -9 is not the kernel's.
	k.spawn("killed", "wait", func(s *keeper.Spawn) { s.Limits.Memory = 256 << 20 })
	if err := k.client.Signal(limited(t), "killed", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if exit := k.await(keeper.EventExited, "killed").Process.Exit; exit.OOM {
		t.Errorf("exit by a signal: %+v", *exit)
	}
}

func TestForkBombHarmsNobody(t *testing.T) {
	t.Parallel()
	eachTrees(t, func(t *testing.T, trees string) {
		k := startKeeperWith(t, treesVar+"="+trees)
		const most = 40
		p := k.spawn("bomb", "bomb", func(s *keeper.Spawn) { s.Limits.PIDs, s.Notify = most, true })
		if len(p.Unmet) > 0 {
			t.Skip(p.Unmet[0])
		}
		until(t, "the bomb to be contained", func() bool { return k.record("bomb").Ready })
		if n := number(k.record("bomb").Status); n < 1 || n >= most {
			t.Errorf("%d processes under a limit of %d", n, most)
		}
		k.spawn("other", "exit", nil, "5")
		if exit := k.await(keeper.EventExited, "other").Process.Exit; exit.Code != 5 {
			t.Errorf("another program ended with %+v", *exit)
		}
		if err := k.client.Kill(limited(t), "bomb"); err != nil {
			t.Fatal(err)
		}
		if exit := k.await(keeper.EventExited, "bomb").Process.Exit; len(exit.Survivors) > 0 {
			t.Errorf("exit %+v", *exit)
		}
	})
}

func TestLimitsChangeWhileTheProgramRuns(t *testing.T) {
	t.Parallel()
	eachTrees(t, func(t *testing.T, trees string) {
		k := startKeeperWith(t, treesVar+"="+trees)
		p := k.spawn("bomb", "bomb", func(s *keeper.Spawn) { s.Limits.PIDs, s.Notify = 30, true })
		if len(p.Unmet) > 0 {
			t.Skip(p.Unmet[0])
		}
		until(t, "the bomb to be contained", func() bool { return k.record("bomb").Ready })
		want := resourceLimits()
		want.Memory, want.CPU, want.Nice, want.OOMScoreAdj = 1<<30, 1.5, new(3), new(44)
		now, err := k.client.Limit(limited(t), "bomb", want)
		if err != nil || now.PID != p.PID || len(now.Unmet) > 0 || now.Limits.Memory != 1<<30 {
			t.Fatalf("%+v, %v", now, err)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		checkLimits(t, string(text))
		if adj, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID)); err != nil || string(adj) != "44\n" {
			t.Errorf("oom_score_adj is %q, %v", adj, err)
		}
		if now, err = k.client.Limit(limited(t), "bomb", keeper.Limits{}); err != nil {
			t.Fatalf("%+v, %v", now, err)
		}
		// Raising a hard limit needs CAP_SYS_RESOURCE, which even root may not have.
		told := len(now.Unmet) > 0 && now.Unmet[0].Limit == "nofile" && strings.Contains(now.Unmet[0].Why, "cannot be lifted")
		text, err = os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID))
		if still := shown(string(text))["Max open files"] == "77 77"; err != nil || still != told {
			t.Errorf("the limit of open files is still there: %v, told so: %v; %v", still, told, err)
		}
		if err := k.client.Kill(limited(t), "bomb"); err != nil {
			t.Fatal(err)
		}
		if _, err := k.client.Limit(limited(t), "bomb", want); fault.Code(err) != "keeper/not-running" {
			t.Errorf("limit of the dead: %v", err)
		}
	})
}

// A keeper without rights starts the program all the same, and says which limits it cannot keep and what would help.
func TestLimitsThatCannotBeKeptAreTold(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a keeper of another user needs root")
	}
	binary := readableSelf(t)
	state := stateFolder(t)
	if err := os.Chown(state, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, state)
	cmd.Env = roleOf("keeper", "PATH="+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	k := reach(t, state, runCommand(t, cmd))
	p := k.spawn("bounded", "", func(s *keeper.Spawn) {
		s.Argv = []string{"/bin/sleep", "1000"}
		s.Limits = keeper.Limits{Memory: 64 << 20, MemoryHigh: 32 << 20, CPU: 1, PIDs: 10, Nice: new(-5), Nofile: new(uint64(1 << 30)), Core: new(uint64(0))}
	})
	var unmet []string
	for _, u := range p.Unmet {
		unmet = append(unmet, u.Limit)
		if u.Why == "" || u.Fix == "" {
			t.Errorf("%+v", u)
		}
	}
	slices.Sort(unmet)
	if got := strings.Join(unmet, " "); got != "cpu memory memory_high nice nofile pids" {
		t.Errorf("not kept: %s", got)
	}
	if birth(p.PID) == "" {
		t.Error("it does not run")
	}
}

// readableSelf is this binary where everybody can execute it.
func readableSelf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(self())
	if err == nil {
		err = os.WriteFile(dir+"/keeper", data, 0o755) //nolint:gosec // others have to execute it
	}
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // as above
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir + "/keeper"
}

func TestLimitsOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for name, l := range map[string]keeper.Limits{
		"memory": {Memory: -1}, "memory_high": {MemoryHigh: -1}, "cpu": {CPU: -1}, "pids": {PIDs: -1},
		"nice": {Nice: new(20)}, "oom_score_adj": {OOMScoreAdj: new(-1001)},
	} {
		_, err := k.trySpawn("a", "wait", func(s *keeper.Spawn) { s.Limits = l })
		if fault.Code(err) != "keeper/bad-request" || !strings.Contains(err.Error(), "limit "+name+" of a") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
