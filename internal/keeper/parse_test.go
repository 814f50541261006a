//go:build linux

package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
)

func TestStatOfThisProcessIsRead(t *testing.T) {
	t.Parallel()
	p, err := readProc(os.Getpid())
	if err != nil || p.pid != os.Getpid() || p.parent != os.Getppid() || p.group != unix.Getpgrp() || p.start == 0 || p.dead {
		t.Errorf("got %+v, %v", p, err)
	}
	id := identity{pid: p.pid, start: p.start}
	h, ok := openIdentity(id)
	if !ok || h.signal(0) != nil {
		t.Error("this process is not found by its identity")
	}
	h.close()
	id.start++
	if _, ok := openIdentity(id); ok {
		t.Error("a process with this pid and another start time is found")
	}
}

func TestStatWithAnOddNameIsRead(t *testing.T) {
	t.Parallel()
	tail := " 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 %THREADS% 0 77 0" + strings.Repeat(" 0", 28) + " 256\n"
	for name, c := range map[string]struct {
		stat    string
		dead    bool
		program string
	}{
		"plain":       {"42 (a) S" + strings.Replace(tail, "%THREADS%", "1", 1), false, "a"},
		"parentheses": {"42 (a) S (b) 9) S" + strings.Replace(tail, "%THREADS%", "1", 1), false, "a) S (b) 9"},
		"zombie":      {"42 (a\nb) Z" + strings.Replace(tail, "%THREADS%", "1", 1), true, "a\nb"},
		"main thread": {"42 (a) Z" + strings.Replace(tail, "%THREADS%", "3", 1), false, "a"},
	} {
		p, err := parseStat([]byte(c.stat))
		want := proc{identity: identity{42, 77}, parent: 1, group: 2, session: 3, name: c.program, dead: c.dead, exit: 256}
		if err != nil || p != want {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestFailedForkNamesItsReasonAndAFix(t *testing.T) {
	t.Parallel()
	for errno, code := range map[error]string{
		unix.EAGAIN: "keeper/no-resources", unix.ENOMEM: "keeper/no-resources", unix.EMFILE: "keeper/no-resources",
		unix.ENFILE: "keeper/no-resources", unix.ETXTBSY: "keeper/busy-binary", unix.ENOEXEC: "keeper/not-executable",
		unix.EACCES: "keeper/not-executable", unix.EPERM: "keeper/not-permitted", unix.ENOENT: "keeper/no-binary",
	} {
		f, ok := fault.As(spawnFault(Spawn{Name: "a", Argv: []string{"/a"}}, fmt.Errorf("fork: %w", errno)))
		if !ok || f.Code != code || f.Fix == "" || f.Where != "/a" || !errors.Is(f, errno) {
			t.Errorf("%v: %+v", errno, f)
		}
	}
}

func TestHierarchiesAreFoundWhereverTheyAreMounted(t *testing.T) {
	t.Parallel()
	const mounts = `36 31 0:33 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
37 31 0:34 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
38 31 0:35 / /sys/fs/cgroup/pids ro,nosuid - cgroup cgroup rw,pids
39 31 0:36 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
40 31 0:37 /other /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
41 31 0:38 / /a\040b rw - cgroup2 cgroup2 rw
42 31 0:38 / /twice rw - cgroup2 cgroup2 rw
nonsense
`
	const own = "9:memory:/user\n8:cpu,cpuacct:/docker/abc/x\n7:pids:/p\n6:freezer:/elsewhere\n0::/u.slice\nnonsense\n"
	want := hierarchies{"memory": "/sys/fs/cgroup/memory/user", "cpu": "/sys/fs/cgroup/cpu,cpuacct/x", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/x", "": "/a b/u.slice"}
	if got := parseHierarchies([]byte(mounts), []byte(own)); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func FuzzHierarchies(f *testing.F) {
	f.Add([]byte("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"), []byte("0::/a\n"))
	f.Fuzz(func(t *testing.T, mounts, own []byte) {
		for controller, dir := range parseHierarchies(mounts, own) {
			if strings.Contains(controller, ",") || dir == "" {
				t.Errorf("%q: %q", controller, dir)
			}
		}
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("42 (a) S 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 77 0\n"))
	f.Add([]byte(")("))
	f.Add([]byte("1 () "))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if p, err := parseStat(stat); err == nil && len(stat) < 22 {
			t.Errorf("%q gives %+v", stat, p)
		}
	})
}

func FuzzNotice(f *testing.F) {
	f.Add("READY=1\nSTATUS=fine")
	f.Add("READY=0\nREADY")
	f.Add("STATUS=" + strings.Repeat("é", maxStatusBytes))
	f.Fuzz(func(t *testing.T, text string) {
		n := parseNotice(text)
		if n.ready && !strings.Contains(text, "READY=1") {
			t.Errorf("%q is ready", text)
		}
		if n.status != nil && (len(*n.status) > maxStatusBytes || !strings.Contains(text, "STATUS=")) {
			t.Errorf("%q has status %q", text, *n.status)
		}
	})
}

func FuzzIdentities(f *testing.F) {
	f.Add([]byte(`{"boot_id":"b","processes":[{"name":"a","run":"R","pid":7,"start_time":9}]}`))
	f.Add([]byte(`{"processes":[{"pid":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, err := parseIdentities(data)
		if err != nil {
			return
		}
		for _, p := range ids.Processes {
			if p.PID < 0 || p.PID == 1 || p.Run == "" {
				t.Errorf("%q would end %+v", data, p)
			}
		}
	})
}

func FuzzControlMessages(f *testing.F) {
	f.Add(unix.UnixCredentials(&unix.Ucred{Pid: 42}))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, control []byte) {
		if messages, err := unix.ParseSocketControlMessage(control); err == nil {
			for _, m := range messages {
				if m.Header.Type == unix.SCM_RIGHTS {
					return // would close descriptors of this process
				}
			}
		}
		sender(control)
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"spawn","spawn":{"name":"a","argv":["/a"]}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var req Request
		if json.Unmarshal(line, &req) != nil || req.Spawn == nil || checkSpawn(*req.Spawn) != nil {
			return
		}
		if s := req.Spawn; s.Name == "" || len(s.Argv) == 0 || strings.ContainsAny(s.Name, "/:\n") {
			t.Errorf("%q is accepted", line)
		}
	})
}
