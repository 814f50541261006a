//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

func TestExitsAreExactUnderQuickSpawns(t *testing.T) {
	k := startKeeper(t)
	before := usage(t, k)
	const spawns, atOnce = 200, 10
	var wg sync.WaitGroup
	names := make(chan int)
	for range atOnce {
		wg.Go(func() {
			for i := range names {
				role, arg := "exit", fmt.Sprint(i)
				if i%4 == 3 {
					role, arg = "die", fmt.Sprint(int(deadly[i/4%len(deadly)]))
				}
				if _, err := k.trySpawn(fmt.Sprintf("p%d", i), role, nil, arg); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range spawns {
		names <- i
	}
	close(names)
	wg.Wait()
	for i := range spawns {
		name := fmt.Sprintf("p%d", i)
		exit := k.await(keeper.EventExited, name).Process.Exit
		code, sig := i, 0
		if i%4 == 3 {
			code, sig = -1, int(deadly[i/4%len(deadly)])
		}
		if exit.Code != code || exit.Signal != sig || len(exit.Survivors) > 0 {
			t.Errorf("%s ended with %+v, want code %d signal %d", name, *exit, code, sig)
		}
		if err := k.client.Forget(limited(t), name); err != nil {
			t.Error(err)
		}
	}
	for pid, after := range usage(t, k) {
		if was := before[pid]; after.files > was.files || after.children > was.children {
			t.Errorf("process %d has %+v after %d spawns, %+v before", pid, after, spawns, was)
		}
	}
}

// deadly are signals that the Go runtime of a child leaves to the kernel.
var deadly = [...]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT}

// held is what a keeper must not gather.
type held struct{ files, children int }

// usage is what keeper and standby hold, by pid.
func usage(t *testing.T, k *kept) map[int]held {
	t.Helper()
	active, standby := k.pids()
	return map[int]held{active: usageOf(t, active), standby: usageOf(t, standby)}
}

// filesOpen is how many descriptors the keeper has.
func filesOpen(t *testing.T, k *kept) int {
	t.Helper()
	active, _ := k.pids()
	return usageOf(t, active).files
}

func usageOf(t *testing.T, pid int) held {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	h := held{files: len(fds)}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		stat, err := os.ReadFile("/proc/" + p.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[1] == fmt.Sprint(pid) {
			h.children++
		}
	}
	return h
}

func TestKillEndsTheWholeTree(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for round := range 50 {
		dir := t.TempDir()
		k.spawn("family", "stem", func(s *keeper.Spawn) { s.Notify = true }, dir, "stay")
		k.await(keeper.EventNotify, "family")
		if err := k.client.Kill(limited(t), "family"); err != nil {
			t.Fatal(err)
		}
		checkGone(t, round, dir, 5)
		exit := k.await(keeper.EventExited, "family").Process.Exit
		if exit.Signal != int(syscall.SIGKILL) || len(exit.Survivors) > 0 {
			t.Fatalf("round %d: exit %+v", round, *exit)
		}
		if err := k.client.Forget(limited(t), "family"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLeaderThatExitsTakesItsTreeAlong(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for round := range 10 {
		dir := t.TempDir()
		name := fmt.Sprintf("family%d", round)
		k.spawn(name, "stem", nil, dir, "leave")
		exit := k.await(keeper.EventExited, name).Process.Exit
		if exit.Code != 3 || len(exit.Survivors) > 0 {
			t.Fatalf("round %d: exit %+v", round, *exit)
		}
		checkGone(t, round, dir, 4)
	}
}

func checkGone(t *testing.T, round int, dir string, members int) {
	t.Helper()
	all := marks(dir)
	if len(all) != members {
		t.Fatalf("round %d: %d members, want %d", round, len(all), members)
	}
	for _, m := range all {
		if lives(m) {
			t.Fatalf("round %d: %q lives on", round, m)
		}
	}
}

func TestSignalReachesTheProcess(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for _, group := range []bool{false, true} {
		name := fmt.Sprintf("waiter-%v", group)
		k.spawn(name, "wait", func(s *keeper.Spawn) { s.Notify = true })
		k.await(keeper.EventNotify, name)
		if err := k.client.Signal(limited(t), name, syscall.SIGINT, group); err != nil {
			t.Fatal(err)
		}
		if exit := k.await(keeper.EventExited, name).Process.Exit; exit.Signal != int(syscall.SIGINT) {
			t.Errorf("group %v: exit %+v", group, *exit)
		}
		err := k.client.Signal(limited(t), name, syscall.SIGINT, group)
		if fault.Code(err) != "keeper/not-running" {
			t.Errorf("signal to the dead: %v", err)
		}
		if err := k.client.Kill(limited(t), name); err != nil {
			t.Errorf("kill of the dead: %v", err)
		}
	}
}

func TestNamesAreUniqueWhileRemembered(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	ctx := limited(t)
	k.spawn("one", "wait", nil)
	if _, err := k.trySpawn("one", "wait", nil); fault.Code(err) != "keeper/name-taken" {
		t.Errorf("second of a name: %v", err)
	}
	if err := k.client.Forget(ctx, "one"); fault.Code(err) != "keeper/still-running" {
		t.Errorf("forget of a running one: %v", err)
	}
	if err := k.client.Kill(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.trySpawn("one", "wait", nil); fault.Code(err) != "keeper/name-taken" {
		t.Errorf("second of a dead one's name: %v", err)
	}
	if err := k.client.Forget(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	k.spawn("one", "exit", nil, "0")
	if err := k.client.Forget(ctx, "other"); fault.Code(err) != "keeper/no-process" {
		t.Errorf("forget of a stranger: %v", err)
	}
}

func TestSpawnFaultsNameTheReason(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := func(path string) func(*keeper.Spawn) {
		return func(s *keeper.Spawn) { s.Argv = []string{path} }
	}
	stranger := uint32(3_999_999_999)
	fifo := dir + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code   string
		change func(*keeper.Spawn)
	}{
		{"keeper/no-binary", program(dir + "/missing")},
		{"keeper/no-binary", program(file("script", "#!/no/such/interpreter\n", 0o700))},
		{"keeper/not-executable", program(file("plain", "#!/bin/sh\n", 0o600))},
		{"keeper/not-executable", program(file("garbage", "\x01\x02\x03", 0o700))},
		{"keeper/not-executable", program(dir)},
		{"keeper/bad-request", program("relative")},
		{"keeper/no-dir", func(s *keeper.Spawn) { s.Dir = dir + "/missing" }},
		{"keeper/no-dir", func(s *keeper.Spawn) { s.Dir = dir + "/plain" }},
		{"keeper/unknown-user", func(s *keeper.Spawn) { s.UID = &stranger }},
		{"keeper/no-socket", func(s *keeper.Spawn) { s.Listen = []string{"none"} }},
		{"keeper/log", func(s *keeper.Spawn) { s.Log.Path = dir }},
		{"keeper/log", func(s *keeper.Spawn) { s.Log.Path = fifo }},
		{"keeper/log", func(s *keeper.Spawn) { s.Log.Path = dir + "/plain/x.log" }},
		{"keeper/bad-request", func(s *keeper.Spawn) { s.Log.Age = -1 }},
		{"keeper/bad-request", func(s *keeper.Spawn) { s.Log.Full = "ignore" }},
		{"keeper/bad-request", func(s *keeper.Spawn) { s.Name = "" }},
		{"keeper/bad-request", func(s *keeper.Spawn) { s.Name = "two\nlines" }},
	} {
		_, err := k.trySpawn("faulty", "exit", c.change, "0")
		if fault.Code(err) != c.code {
			t.Errorf("want %s, got %s: %v", c.code, fault.Code(err), err)
		}
	}
	processes, _, err := k.client.List(limited(t))
	if err != nil || len(processes) != 0 {
		t.Errorf("after faults there are %v, %v", processes, err)
	}
}

func TestChildRunsAsAnotherUser(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	nobody := uint32(65534)
	p, err := k.trySpawn("other", "wait", func(s *keeper.Spawn) {
		s.Argv = []string{"/bin/sleep", "1000"} // the test binary is in a folder that only its owner may enter
		s.UID, s.GID = &nobody, &nobody
	})
	if os.Geteuid() != 0 {
		if fault.Code(err) != "keeper/not-permitted" {
			t.Errorf("without rights: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d", p.PID))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != nobody {
		t.Errorf("child runs as %d", uid)
	}
	if err := k.client.Kill(limited(t), "other"); err != nil {
		t.Error(err)
	}
}

func TestChildSeesTheKeepersWordsOnly(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	p := k.spawn("env", "env", func(s *keeper.Spawn) {
		s.Notify = true
		s.Env = append(s.Env, "HOZO_RUN=forged", "NOTIFY_SOCKET=/forged", "LISTEN_FDS=7", "PORT=81", "A=b")
		s.Labels = map[string]string{"service": "env"}
	})
	if p.Labels["service"] != "env" || p.StartTime == 0 || p.Run == "" {
		t.Errorf("record %+v", p)
	}
	k.await(keeper.EventExited, "env")
	got := k.log("env")
	want := "HOZO_RUN=" + p.Run + "\nNOTIFY_SOCKET=" + k.state + "/notify.sock\n" + roleVar + "=env\nGORACE=atexit_sleep_ms=0\nPORT=81\nA=b\n"
	if got != want {
		t.Errorf("environment:\n%swant:\n%s", got, want)
	}
}
