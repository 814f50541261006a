//go:build linux

package keeper_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// victim is one of the two processes that keep a project.
type victim string

const (
	activeKeeper victim = "keeper"
	standby      victim = "standby"
)

// killOne kills a victim and returns when both are back.
func (k *kept) killOne(v victim) {
	k.t.Helper()
	active, second := k.pids()
	pid := active
	if v == standby {
		pid = second
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		k.t.Fatalf("kill %s: %v", v, err)
	}
	until(k.t, "keeper and standby to be back", func() bool {
		a, s := k.pids()
		return a != pid && s != pid && s != 0 && birth(a) != "" && birth(s) != ""
	})
}

// teller spawns a process that prints numbered lines. Its status is the number of its name.
func (k *kept) teller(dir, name string, status int) keeper.Process {
	return k.spawn(name, "tell", func(s *keeper.Spawn) {
		s.Notify = true
		s.Labels = map[string]string{"label": name}
	}, filepath.Join(dir, name), strconv.Itoa(status))
}

// awaitExit waits for a record with an exit.
func (k *kept) awaitExit(name string) keeper.Process {
	k.t.Helper()
	var p keeper.Process
	until(k.t, "exit of "+name, func() bool {
		p = k.record(name)
		return p.Exit != nil
	})
	return p
}

// checkTold says whether a teller's log is complete: every line once, in order.
func (k *kept) checkTold(dir, name string) {
	k.t.Helper()
	want := number(string(read(k.t, dir, name)))
	next := 0
	for line := range strings.Lines(k.log(name)) {
		if got := strings.TrimSpace(line); got != fmt.Sprintf("line %d", next) {
			k.t.Errorf("%s: line %d is %q", name, next, got)
			return
		}
		next++
	}
	if next != want {
		k.t.Errorf("%s printed %d lines, its log has %d", name, want, next)
	}
}

func TestServicesSurviveTheKeeperAndTheStandby(t *testing.T) {
	t.Parallel()
	for _, order := range [][]victim{
		{activeKeeper},
		{standby},
		{activeKeeper, activeKeeper, activeKeeper},
		{standby, standby},
		{standby, activeKeeper},
	} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			k := startKeeper(t)
			dir := t.TempDir()
			before := map[string]keeper.Process{}
			for i, name := range []string{"a", "b", "c"} {
				k.teller(dir, name, i+3)
				until(t, name+" to be ready", func() bool { return k.record(name).Ready })
				before[name] = k.record(name)
			}
			ended := k.spawn("ended", "exit", nil, "7")
			k.await(keeper.EventExited, "ended")
			socket, err := k.client.Listen(limited(t), keeper.Listen{Name: "l", Network: "tcp", Address: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			k.spawn("served", "serve", func(s *keeper.Spawn) { s.Listen = []string{"l"} })
			for _, v := range order {
				k.killOne(v)
			}
			for name, was := range before {
				now := k.record(name)
				if now.PID != was.PID || now.Run != was.Run || now.StartTime != was.StartTime || !now.Started.Equal(was.Started) ||
					!now.Ready || now.Status != "telling" || now.Labels["label"] != name || now.Exit != nil {
					t.Errorf("before %+v\nnow    %+v", was, now)
				}
			}
			if now := k.record("ended"); now.Run != ended.Run || now.Exit == nil || now.Exit.Code != 7 {
				t.Errorf("ended before: %+v", now)
			}
			if pid := dialServed(t, socket.Address); pid != k.record("served").PID {
				t.Errorf("process %d answers", pid)
			}
			again, err := k.client.Listen(limited(t), keeper.Listen{Name: "l", Network: "tcp", Address: "127.0.0.1:0"})
			if err != nil || again != socket {
				t.Errorf("socket is %+v, %v; it was %+v", again, err, socket)
			}
			// They end as they would have: told, with their own status, their output whole.
			for i, name := range []string{"a", "b", "c"} {
				if err := k.client.Signal(limited(t), name, syscall.SIGTERM, i%2 == 0); err != nil {
					t.Fatal(err)
				}
				if e := k.await(keeper.EventExited, name); e.Process.Exit.Code != i+3 || e.Process.Exit.Signal != 0 {
					t.Errorf("%s ended with %+v", name, e.Process.Exit)
				}
				k.checkTold(dir, name)
			}
			if err := k.client.Kill(limited(t), "served"); err != nil {
				t.Fatal(err)
			}
			if p := k.record("served"); p.Exit == nil || p.Exit.Signal != int(syscall.SIGKILL) {
				t.Errorf("served ended with %+v", p.Exit)
			}
			if err := k.client.Forget(limited(t), "a"); err != nil {
				t.Error(err)
			}
			k.spawn("a", "exit", nil, "0") // the name is free again
		})
	}
}

func dialServed(t *testing.T, address string) int {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return number(strings.Fields(line)[0])
}

func TestExitWhileNobodyKeepsIsExact(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	dir := t.TempDir()
	p := k.teller(dir, "a", 42)
	until(t, "a to be ready", func() bool { return k.record("a").Ready })
	active, second := k.pids()
	// The standby stands still, so that there is no keeper until it goes on.
	for _, kill := range []struct {
		pid int
		sig syscall.Signal
	}{{second, syscall.SIGSTOP}, {active, syscall.SIGKILL}, {p.PID, syscall.SIGTERM}} {
		if err := syscall.Kill(kill.pid, kill.sig); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "a to end", func() bool { return birth(p.PID) == "" })
	if err := syscall.Kill(second, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	k.pids() // dials again
	if now := k.awaitExit("a"); now.Exit.Code != 42 || now.Run != p.Run {
		t.Errorf("a ended with %+v", now.Exit)
	}
	k.checkTold(dir, "a")
}

func TestServicesOfALostParentAreWatched(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	dir := t.TempDir()
	for i, name := range []string{"a", "b", "c"} {
		k.teller(dir, name, i)
		until(t, name+" to be ready", func() bool { return k.record(name).Ready })
	}
	was := k.record("a")
	k.killOne(activeKeeper) // the standby is their parent
	k.killOne(standby)      // init is, or whoever inherits here
	if now := k.record("a"); now.PID != was.PID || now.Exit != nil || !now.Ready {
		t.Errorf("before %+v\nnow    %+v", was, now)
	}
	for i, name := range []string{"a", "b"} {
		if err := k.client.Signal(limited(t), name, syscall.SIGTERM, i == 0); err != nil {
			t.Fatal(err)
		}
		// A kernel of 6.15 or later tells; an older one does not, and then the status is unknown, never a wrong one.
		if e := k.await(keeper.EventExited, name).Process.Exit; e.Signal != 0 || e.Code != i && e.Code != -1 {
			t.Errorf("%s ended with %+v", name, e)
		}
		k.checkTold(dir, name)
	}
	if err := k.client.Kill(limited(t), "c"); err != nil {
		t.Fatal(err)
	}
	if e := k.record("c").Exit; e == nil || e.Code != -1 {
		t.Errorf("c ended with %+v", e)
	}
	k.spawn("d", "exit", nil, "9") // a new one is a child again
	if e := k.await(keeper.EventExited, "d").Process.Exit; e.Code != 9 {
		t.Errorf("d ended with %+v", e)
	}
}

// The keeper, or now and then its standby, is killed at random moments while processes are started, told to end and
// forgotten.
func TestKillsAtRandomMomentsLoseNothing(t *testing.T) {
	t.Parallel()
	for name, standbys := range map[string]int{"keeper": 0, "keeper and standby": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			randomKills(t, standbys)
		})
	}
}

// randomKills kills the standby instead of the keeper once in every standbys rounds; 0 means never.
func randomKills(t *testing.T, standbys int) {
	const rounds = 12
	k := startKeeper(t)
	k.unsure = standbys > 0
	dir := t.TempDir()
	seed := time.Now().UnixNano()
	random := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // reproducible, not secret
	t.Logf("seed %d", seed)
	lasting := map[string]keeper.Process{}
	for i := range 4 {
		name := fmt.Sprintf("lasting%d", i)
		lasting[name] = k.teller(dir, name, 50+i)
	}
	for round := range rounds {
		victim, second := k.pids()
		if standbys > 0 && random.IntN(standbys) == 0 {
			victim = second
		}
		killed := make(chan error, 1)
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(15*time.Millisecond))), func() {
			killed <- syscall.Kill(victim, syscall.SIGKILL)
		})
		// What is asked for until the kill may have been done or not; each must be one of the two.
		for i := range 8 {
			name, status := fmt.Sprintf("r%d.%d", round, i), (round*8+i)%200
			_, err := k.trySpawn(name, "tell", nil, filepath.Join(dir, name), strconv.Itoa(status))
			if err == nil {
				err = k.client.Signal(limited(t), name, syscall.SIGTERM, false)
			}
			if err != nil {
				break
			}
		}
		<-killed
		timer.Stop()
		k.pids() // dials again
		processes, _, err := k.client.List(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range processes {
			if was, ok := lasting[p.Name]; ok {
				if p.PID != was.PID || p.Run != was.Run || p.Exit != nil {
					t.Errorf("before %+v\nnow    %+v", was, p)
				}
				continue
			}
			k.endTeller(dir, p)
		}
	}
	for name := range lasting {
		k.endTeller(dir, k.record(name))
	}
}

// endTeller ends a teller that may have been told to end already, and checks how it did.
func (k *kept) endTeller(dir string, p keeper.Process) {
	k.t.Helper()
	want := 0
	if round, ok := strings.CutPrefix(p.Name, "r"); ok {
		r, i, _ := strings.Cut(round, ".")
		want = (number(r)*8 + number(i)) % 200
	} else {
		want = 50 + number(strings.TrimPrefix(p.Name, "lasting"))
	}
	if n := running(p.Run); n > 1 {
		k.t.Errorf("%d processes of %s run", n, p.Name)
	}
	_ = k.client.Signal(limited(k.t), p.Name, syscall.SIGTERM, false) // it may have ended
	e := k.awaitExit(p.Name).Exit
	if e.Signal == int(syscall.SIGTERM) { // before it could handle it
		return
	}
	// A service that has lost its parent ends with an unknown status on a kernel before 6.15.
	if e.Code != want && (!k.unsure || e.Code != -1 || e.Signal != 0) {
		k.t.Errorf("%s ended with %+v, want %d", p.Name, e, want)
		return
	}
	k.checkTold(dir, p.Name)
	if err := k.client.Forget(limited(k.t), p.Name); err != nil {
		k.t.Error(err)
	}
}

// running counts the processes that carry a run.
func running(run string) int {
	dirs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		panic(err)
	}
	n := 0
	for _, path := range dirs {
		if env, err := os.ReadFile(path); err == nil && strings.Contains("\x00"+string(env), "\x00HOZO_RUN="+run+"\x00") {
			n++
		}
	}
	return n
}

func TestStandbyThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	dir := t.TempDir()
	k.teller(dir, "a", 5)
	_, hung := k.pids()
	if err := syscall.Kill(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The link takes some records before it is full; then the keeper waits no longer than it must.
	for i := 0; birth(hung) != ""; i++ {
		name := strconv.Itoa(i)
		long := func(s *keeper.Spawn) { s.Labels = map[string]string{"label": strings.Repeat("x", 15<<10)} }
		if _, err := k.trySpawn(name, "exit", long, "0"); err != nil {
			k.redial()
			continue
		}
		_ = k.client.Kill(limited(t), name)   // the keeper may be on its way to be the standby
		_ = k.client.Forget(limited(t), name) // as above
	}
	until(t, "another standby", func() bool {
		active, standby := k.pids()
		return active != hung && standby != hung && standby != 0
	})
	if err := k.client.Signal(limited(t), "a", syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if p := k.awaitExit("a"); p.Exit.Code != 5 {
		t.Errorf("a ended with %+v", p.Exit)
	}
	k.checkTold(dir, "a")
}

func TestStopAfterATakeoverLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, order := range [][]victim{{activeKeeper}, {standby}, {activeKeeper, standby}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			k := startKeeper(t, "wait")
			dir := t.TempDir()
			k.spawn("family", "stem", func(s *keeper.Spawn) { s.Notify = true }, dir, "stay")
			k.await(keeper.EventNotify, "family")
			until(t, "node", func() bool { return k.record("node").Ready })
			node := birth(k.record("node").PID)
			l, err := k.client.Listen(limited(t), keeper.Listen{Name: "l", Network: "tcp", Address: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range order {
				k.killOne(v)
			}
			if birth(k.record("node").PID) != node {
				t.Error("node was started again")
			}
			active, second := k.pids()
			if err := k.client.Shutdown(limited(t)); err != nil {
				t.Fatal(err)
			}
			<-k.client.Done()
			for _, m := range append(marks(dir), node) {
				if lives(m) {
					t.Errorf("%q outlives the keeper", m)
				}
			}
			again, err := net.Listen("tcp", l.Address)
			if err != nil {
				t.Errorf("its address is still taken: %v", err)
			} else {
				again.Close()
			}
			next := startKeeperIn(t, k.state) // at once
			if p, _, err := next.client.List(limited(t)); err != nil || len(p) != 0 {
				t.Errorf("next keeper starts with %v, %v", p, err)
			}
			until(t, "keeper and standby to end", func() bool { return birth(active) == "" && birth(second) == "" })
		})
	}
}
