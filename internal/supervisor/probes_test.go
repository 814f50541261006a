package supervisor_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// pipe makes a named pipe and returns how to write a line to it. It stays open, so that no line waits for a reader.
func (w *world) pipe(t *testing.T, name string) (write func(string)) {
	t.Helper()
	must(t, syscall.Mkfifo(w.path(name), 0o600))
	f, err := os.OpenFile(w.path(name), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return func(line string) {
		_, err := fmt.Fprintln(f, line)
		must(t, err)
	}
}

// talker is an instance that says what is written to its pipe.
func (w *world) talker(t *testing.T, name string) (plan.Spec, func(string)) {
	t.Helper()
	s := w.spec(name, "talker")
	s.Env = append(s.Env, "TALKER_PIPE="+w.path(name+".pipe"))
	s.Notify = true
	return s, w.pipe(t, name+".pipe")
}

func TestExecHealthDecidesByExitStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	spec.Health = &plan.Health{Exec: []string{w.self, "check", w.path("gate")}, Interval: 10 * time.Millisecond, Timeout: 10 * time.Second, Failures: 2}
	v.apply(t, spec)
	v.await(t, status.Starting, "a.1")
	w.open(t, "gate")
	before := v.await(t, status.Ready, "a.1")
	w.close(t, "gate")
	if i := v.await(t, status.Unready, "a.1"); i.Reason != "exit status 1: the gate is closed" {
		t.Errorf("%+v", i)
	}
	w.open(t, "gate")
	if after := v.awaitThat(t, "ready again", func(i status.Instance) bool { return i.State == status.Ready }, "a.1"); after.PID != before.PID && after.Restarts == 0 {
		t.Errorf("%+v", after)
	}
}

func TestExecProbeThatHangsIsKilledWithItsGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	spec.Health = &plan.Health{Exec: []string{w.self, "check", w.path("gate"), w.path("pids")}, Interval: time.Hour, Timeout: 2 * time.Second, Grace: time.Hour}
	spec.Liveness = &plan.Health{Exec: []string{w.path("missing")}, Interval: 10 * time.Millisecond, Grace: 2 * time.Second}
	v.apply(t, spec)
	pids := appears(t, w.path("pids"))
	// Its liveness probe cannot even be started; once the grace is over that ends the instance, and the probe with it.
	i := v.await(t, status.Backoff, "a.1")
	if !strings.HasPrefix(i.Reason, "not alive 3 times in a row: run probe: ") || !strings.Contains(i.Reason, w.path("missing")) {
		t.Errorf("%+v", i)
	}
	for _, pid := range ints(t, pids) {
		waitFor(t, fmt.Sprintf("process %d of the probe to be gone", pid), func() bool { return !alive(pid) })
	}
}

func TestGRPCHealthAsksARealServer(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.supervise(t)
			tell := w.pipe(t, "states")
			address := "127.0.0.1:0"
			spec := w.spec("a.1", "rpc", w.path("states"))
			spec.Health = &plan.Health{GRPC: address, Service: "my.Service", Interval: 10 * time.Millisecond, Failures: 2, Grace: time.Hour}
			spec.Liveness = &plan.Health{GRPC: address, Interval: 10 * time.Millisecond} // the whole server is well
			if network == "unix" {
				address = w.path("rpc.sock")
				spec.Health.Unix, spec.Liveness.Unix = address, address
			}
			spec.Listen = []plan.Listen{{Name: "rpc", Network: network, Address: address}}
			v.apply(t, spec)
			v.await(t, status.Starting, "a.1")
			tell("SERVING")
			before := v.await(t, status.Ready, "a.1")
			tell("NOT_SERVING") // for as long as it says so it is unready, and no more
			if i := v.await(t, status.Unready, "a.1"); i.Reason != "health check answers NOT_SERVING" {
				t.Errorf("%+v", i)
			}
			tell("SERVING")
			v.await(t, status.Ready, "a.1")
			if i := v.get(t, "a.1"); i.PID != before.PID {
				t.Errorf("it was restarted: %+v", i)
			}
			tell("SERVICE_UNKNOWN")
			v.awaitThat(t, "unready", func(i status.Instance) bool { return i.Reason == "health check answers SERVICE_UNKNOWN" }, "a.1")
		})
	}
}

func TestGRPCHealthSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, pipe, service, reason string }{
		{"no such service", "states", "other.Service", `not ready within 1s: health check does not know service "other.Service"`},
		{"no health service", "", "", "not ready within 1s: the server has no grpc.health.v1 service"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.supervise(t)
			w.pipe(t, "states")
			path := ""
			if c.pipe != "" {
				path = w.path(c.pipe)
			}
			spec := w.spec("a.1", "rpc", path)
			spec.Listen = []plan.Listen{{Name: "rpc", Network: "tcp", Address: "127.0.0.1:0"}}
			spec.Health = &plan.Health{GRPC: "127.0.0.1:0", Service: c.service, Interval: 10 * time.Millisecond, Timeout: 10 * time.Second, Grace: time.Second}
			spec.Restart = plan.Restart{Delay: time.Hour, Max: time.Hour}
			v.apply(t, spec)
			if i := v.await(t, status.Backoff, "a.1"); i.Reason != c.reason {
				t.Errorf("%+v", i)
			}
		})
	}
}

func TestLogHealthIsReadyOnceALineMatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.supervise(t)
	spec, tell := w.talker(t, "a.1")
	spec.Health = &plan.Health{Log: `^listening on \d+$`, Grace: time.Hour}
	spec.Log.MaxBytes, spec.Log.Keep = 100, 1 // the line is soon rotated away
	first.apply(t, spec)
	tell("print listening on nothing")
	first.await(t, status.Starting, "a.1")
	first.stop()

	tell("print listening on 80") // while nobody watches
	for range 50 {
		tell("print " + strings.Repeat("x", 40))
	}
	appears(t, w.path("a.1.log.1"))
	second := w.supervise(t)
	second.apply(t, spec)
	second.await(t, status.Ready, "a.1")
	second.stop()
	third := w.supervise(t)
	third.apply(t, spec)
	third.await(t, status.Ready, "a.1")

	must(t, syscall.Kill(third.get(t, "a.1").PID, syscall.SIGKILL))
	third.awaitThat(t, "starting anew", func(i status.Instance) bool { return i.State == status.Starting && i.Restarts == 1 }, "a.1")
	tell("print listening on 80")
	third.await(t, status.Ready, "a.1")
}

func TestSuccessesInARowMakeItReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	// Every other probe succeeds: each puts a mark, and one that finds it takes it away and fails.
	script := `if rmdir "$0" 2>/dev/null; then exit 1; fi; mkdir "$0"; echo >> "$0.count"`
	spec.Health = &plan.Health{Exec: []string{"/bin/sh", "-c", script, w.path("mark")}, Interval: time.Millisecond, Timeout: time.Minute, Successes: 2, Grace: time.Hour}
	spec.Env = append(spec.Env, "PATH=/usr/bin:/bin")
	v.apply(t, spec)
	for len(appears(t, w.path("mark.count"))) < 5 {
		if i := v.get(t, "a.1"); i.State == status.Ready {
			t.Fatalf("one success in a row makes it %+v", i)
		}
	}
	must(t, os.WriteFile(w.path("mark.count"), []byte("x"), 0o600))
	spec.Health = &plan.Health{Exec: []string{"/bin/sh", "-c", `echo >> "$0"`, w.path("count")}, Interval: time.Millisecond, Timeout: time.Minute, Successes: 5, Grace: time.Hour}
	v.apply(t, spec) // hot: the process runs on
	v.await(t, status.Ready, "a.1")
	if n := len(appears(t, w.path("count"))); n < 5 {
		t.Errorf("ready after %d successes", n)
	}
}

func TestLivenessRestartsAndHealthThenOnlyMarks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.sleeper("a.1")
	count := func() int { return len(appears(t, w.path("count"))) }
	spec.Env = append(spec.Env, "PATH=/usr/bin:/bin")
	spec.Health = &plan.Health{
		Exec:     []string{"/bin/sh", "-c", `echo >> "$0"; test -e "$1"`, w.path("count"), w.path("gate")},
		Interval: time.Millisecond, Timeout: time.Minute, Failures: 2, // without liveness crashed after 8
	}
	w.open(t, "alive")
	spec.Liveness = &plan.Health{Exec: []string{w.self, "check", w.path("alive")}, Interval: 10 * time.Millisecond, Timeout: time.Minute, Failures: 2, Grace: 1}
	w.open(t, "gate")
	v.apply(t, spec)
	before := v.await(t, status.Ready, "a.1")
	w.close(t, "gate")
	v.await(t, status.Unready, "a.1")
	seen := count()
	waitFor(t, "more failures than would have condemned it", func() bool { return count() > seen+20 })
	if i := v.get(t, "a.1"); i.State != status.Unready || i.PID != before.PID {
		t.Errorf("%+v", i)
	}
	w.close(t, "alive")
	v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.Restarts == 1 && i.PID != 0 && i.PID != before.PID }, "a.1")
	told := false
	for _, e := range v.told("a.1") {
		told = told || e.State == status.Backoff && strings.HasPrefix(e.Reason, "not alive 2 times in a row: exit status 1")
		if strings.HasPrefix(e.Reason, "unhealthy") {
			t.Errorf("its health condemned it: %+v", e)
		}
	}
	if !told {
		t.Error("the reason is not told")
	}
}
