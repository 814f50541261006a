//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

// withShim are the two ways in which a program is started: by itself, and by way of a shim that sets its limits.
func withShim(t *testing.T, test func(t *testing.T, way func(*keeper.Spawn))) {
	for name, way := range map[string]func(*keeper.Spawn){
		"plain":   func(*keeper.Spawn) {},
		"limited": func(s *keeper.Spawn) { s.Limits.Core = new(uint64(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, way)
		})
	}
}

// checkFault checks that an error has a code, a place and a fix.
func checkFault(t *testing.T, what string, err error, code string) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Code != code || f.Fix == "" {
		t.Errorf("%s: want %s with a fix, got %+v: %v", what, code, f, err)
	}
}

func TestProgramThatCannotBeStartedIsAFaultAndHarmsNobody(t *testing.T) {
	t.Parallel()
	withShim(t, func(t *testing.T, way func(*keeper.Spawn)) {
		k := startKeeper(t)
		sibling := k.spawn("sibling", "wait", nil)
		dir := t.TempDir()
		file := func(name, text string, mode os.FileMode) string {
			path := dir + "/" + name
			if err := os.WriteFile(path, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
			return path
		}
		nobody := func(s *keeper.Spawn) { s.UID, s.GID = new(uint32(65534)), new(uint32(65534)) }
		type try struct {
			what, code, path string
			change           func(*keeper.Spawn)
		}
		tries := []try{
			{"missing", "keeper/no-binary", dir + "/missing", nil},
			{"no interpreter", "keeper/no-binary", file("script", "#!/no/such/interpreter\n", 0o700), nil},
			{"not executable", "keeper/not-executable", file("plain", "#!/bin/sh\n", 0o600), nil},
			{"ENOEXEC", "keeper/not-executable", file("garbage", "\x01\x02\x03", 0o700), nil},
			{"empty", "keeper/not-executable", file("empty", "", 0o700), nil},
			{"folder", "keeper/not-executable", dir, nil},
			{"no folder", "keeper/no-dir", "/bin/true", func(s *keeper.Spawn) { s.Dir = dir + "/none" }},
			{"folder is a file", "keeper/no-dir", "/bin/true", func(s *keeper.Spawn) { s.Dir = dir + "/plain" }},
			{"unknown user", "keeper/unknown-user", "/bin/true", func(s *keeper.Spawn) { s.UID = new(uint32(3_999_999_999)) }},
		}
		if os.Geteuid() == 0 {
			tries = append(tries,
				try{"unreadable", "keeper/not-executable", file("private", "#!/bin/sh\n", 0o700), nobody},
				try{"folder of another", "keeper/not-executable", "/bin/true", func(s *keeper.Spawn) {
					nobody(s)
					s.Dir = dir
				}})
		}
		for _, c := range tries {
			_, err := k.trySpawn("faulty", "exit", func(s *keeper.Spawn) {
				s.Argv = []string{c.path}
				way(s)
				if c.change != nil {
					c.change(s)
				}
			})
			checkFault(t, c.what, err, c.code)
		}
		all, _, err := k.client.List(limited(t))
		if err != nil || len(all) != 1 || all[0].PID != sibling.PID || all[0].Exit != nil {
			t.Errorf("after the faults there are %+v, %v", all, err)
		}
	})
}

func TestProgramThatIsBeingWrittenIsWaitedFor(t *testing.T) {
	t.Parallel()
	withShim(t, func(t *testing.T, way func(*keeper.Spawn)) {
		k := startKeeper(t)
		binary, err := os.ReadFile("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		path := t.TempDir() + "/program"
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o700)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(binary); err != nil {
			t.Fatal(err)
		}
		program := func(s *keeper.Spawn) {
			s.Argv = []string{path}
			way(s)
		}
		_, err = k.trySpawn("a", "", program)
		checkFault(t, "never done", err, "keeper/busy-binary")

		var wg sync.WaitGroup
		wg.Go(func() {
			<-time.After(200 * time.Millisecond) // the deploy takes a moment longer
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
		k.spawn("a", "", program)
		wg.Wait()
		if exit := k.await(keeper.EventExited, "a").Process.Exit; exit.Code != 0 {
			t.Errorf("exit %+v", *exit)
		}
	})
}

func TestKeeperWithoutDescriptorsKeepsWhatRuns(t *testing.T) {
	t.Parallel()
	withShim(t, func(t *testing.T, way func(*keeper.Spawn)) {
		k := startKeeper(t)
		before := k.spawn("before", "wait", nil)
		pid, _ := k.pids()
		var old unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
			t.Fatal(err)
		}
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		for spare := range 12 { // each place of a spawn that needs a descriptor
			tight := unix.Rlimit{Cur: uint64(len(open) + spare), Max: old.Max}
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &tight, nil); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("tight%d", spare)
			if _, err := k.trySpawn(name, "wait", way); err != nil {
				checkFault(t, name, err, "keeper/no-resources")
			}
			if err := k.client.Signal(limited(t), "before", syscall.SIGCONT, false); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
			t.Fatal(err)
		}
		k.spawn("after", "exit", func(s *keeper.Spawn) { way(s) }, "6")
		if exit := k.await(keeper.EventExited, "after").Process.Exit; exit.Code != 6 {
			t.Errorf("exit %+v", *exit)
		}
		if now := k.record("before"); now.PID != before.PID || now.Exit != nil {
			t.Errorf("before %+v, now %+v", before, now)
		}
	})
}

// RLIMIT_NPROC counts all processes of a user, whoever started them: the program starts and cannot go on to fork.
func TestUserWithoutRoomForAProcessHarmsNobody(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("another user needs root")
	}
	k := startKeeper(t)
	user := new(3_000_000 + uint32(os.Getpid()%1000))
	shell := func(s *keeper.Spawn) {
		s.Argv, s.Dir = []string{"/bin/sh", "-c", "/bin/sleep 0 || exit 7; exit 0"}, "/"
		s.UID, s.GID, s.Limits.NProc = user, user, new(uint64(1))
	}
	k.spawn("a", "", shell)
	if exit := k.await(keeper.EventExited, "a").Process.Exit; exit.Code == 0 {
		t.Errorf("it could fork: %+v", *exit)
	}
	k.spawn("b", "", func(s *keeper.Spawn) {
		shell(s)
		s.Limits.NProc = new(uint64(20))
	})
	if exit := k.await(keeper.EventExited, "b").Process.Exit; exit.Code != 0 {
		t.Errorf("it could not fork: %+v, %s", *exit, k.log("b"))
	}
}

func TestChildThatClosesItsOutputRunsOn(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	p := k.spawn("mute", "mute", func(s *keeper.Spawn) { s.Notify = true })
	k.await(keeper.EventNotify, "mute")
	k.spawn("other", "count", nil, "3")
	k.await(keeper.EventExited, "other")
	if now := k.record("mute"); now.Exit != nil || birth(p.PID) == "" {
		t.Errorf("now %+v", now)
	}
	k.killOne(activeKeeper) // a capture that has ended is adopted as well
	if now := k.record("mute"); now.Exit != nil || now.PID != p.PID {
		t.Errorf("adopted %+v", now)
	}
	if err := k.client.Kill(limited(t), "mute"); err != nil {
		t.Fatal(err)
	}
	if exit := k.record("mute").Exit; exit == nil || exit.Signal != int(syscall.SIGKILL) {
		t.Errorf("exit %+v", exit)
	}
}

func TestHalfWrittenStateIsReadOrRefused(t *testing.T) {
	t.Parallel()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	whole := fmt.Sprintf(`{"boot_id":%q,"processes":[]}`, strings.TrimSpace(string(boot)))
	for name, c := range map[string]struct{ text, code string }{
		"cut last line": {whole + "\n" + `{"name":"a","run":"R"}` + "\n" + `{"name":"b","ru`, ""},
		"cut":           {whole[:len(whole)-5], "keeper/bad-identities"},
		"empty":         {"", "keeper/bad-identities"},
		"garbage":       {whole + "\n}\n", "keeper/bad-identities"},
		"init":          {whole + "\n" + `{"name":"a","run":"R","pid":1}` + "\n", "keeper/bad-identities"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := stateFolder(t)
			if err := os.WriteFile(state+"/keeper.json", []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.code == "" {
				k := startKeeperIn(t, state)
				k.spawn("a", "exit", nil, "0")
				k.await(keeper.EventExited, "a")
				return
			}
			cmd := startCommand(t, "keeper", state)
			<-cmd.done
			if last := lastLine(cmd.output()); !strings.HasPrefix(last, c.code+" ") {
				t.Errorf("keeper said %q", last)
			}
		})
	}
}
