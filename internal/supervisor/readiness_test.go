package supervisor_test

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// starting is an instance that never gets ready.
func (w *world) starting(name string) plan.Spec {
	s := w.sleeper(name)
	s.Health = &plan.Health{Notify: true, Grace: time.Hour}
	return s
}

// web is an instance that answers 200 while the gate file is there.
func (w *world) web(name, network, address string) plan.Spec {
	s := w.spec(name, "web", w.path(name+".gate"))
	s.Listen = []plan.Listen{{Name: "http", Network: network, Address: address}}
	s.Health = &plan.Health{HTTP: "http://127.0.0.1:0/healthz", Interval: 10 * time.Millisecond, Failures: 2}
	if network == "unix" {
		s.Health.HTTP, s.Health.Unix = "http://web/healthz", address
	}
	return s
}

func (w *world) open(t failer, gate string)  { must(t, os.WriteFile(w.path(gate), []byte("x"), 0o600)) }
func (w *world) close(t failer, gate string) { must(t, os.Remove(w.path(gate))) }

func TestHTTPHealthDecidesReadyUnreadyAndCrash(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			v := w.supervise(t)
			address := "127.0.0.1:0"
			if network == "unix" {
				address = w.path("web.sock")
			}
			v.apply(t, w.web("web.1", network, address))
			first := v.awaitThat(t, "running", func(i status.Instance) bool { return i.PID != 0 }, "web.1")
			if first.State != status.Starting {
				t.Errorf("it is %s while the gate is closed", first.State)
			}
			w.open(t, "web.1.gate")
			if i := v.await(t, status.Ready, "web.1"); i.PID != first.PID {
				t.Errorf("it was restarted: %+v", i)
			}
			if v.Addresses()["web.http"] == "" {
				t.Error("the address is not known")
			}
			w.close(t, "web.1.gate") // 503: it works and says that it cannot serve now
			asked := func() int64 {
				info, err := os.Stat(w.path("web.1.gate.asked"))
				must(t, err)
				return info.Size()
			}
			v.await(t, status.Unready, "web.1")
			enough := asked() + 20 // 8 failures would be a crash
			testkit.Eventually(t, func() bool { return asked() >= enough }, "20 more probes are answered with 503")
			if i := v.await(t, status.Unready, "web.1"); i.PID != first.PID {
				t.Errorf("it was restarted for answering 503: %+v", i)
			}
			must(t, os.WriteFile(w.path("web.1.gate"), []byte("sick"), 0o600)) // 500
			i := v.awaitThat(t, "restarted", func(i status.Instance) bool { return i.Restarts == 1 }, "web.1")
			var unready, condemned bool
			for _, e := range v.told("web.1") {
				unready = unready || e.State == status.Unready && strings.Contains(e.Reason, "503")
				condemned = condemned || e.State == status.Backoff && strings.Contains(e.Reason, "unhealthy")
			}
			if !unready || !condemned {
				t.Errorf("unready %v, condemned %v: %+v", unready, condemned, i)
			}
			w.open(t, "web.1.gate")
			v.await(t, status.Ready, "web.1")
		})
	}
}

func TestUnreadyInstanceThatRecoversIsNotRestarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.web("web.1", "tcp", "127.0.0.1:0")
	spec.Health.Failures = 20 // unready after 20 probes, condemned after 80
	w.open(t, "web.1.gate")
	v.apply(t, spec)
	before := v.await(t, status.Ready, "web.1")
	w.close(t, "web.1.gate")
	v.await(t, status.Unready, "web.1")
	w.open(t, "web.1.gate")
	if after := v.await(t, status.Ready, "web.1"); after.PID != before.PID {
		t.Error("it was restarted")
	}
}

func TestStoppedProcessThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.web("web.1", "tcp", "127.0.0.1:0")
	spec.Health.Timeout = 30 * time.Millisecond
	spec.Stop.Grace = 50 * time.Millisecond
	w.open(t, "web.1.gate")
	v.apply(t, spec)
	before := v.await(t, status.Ready, "web.1")
	must(t, syscall.Kill(before.PID, syscall.SIGSTOP))
	v.awaitThat(t, "replaced", func(i status.Instance) bool { return i.State == status.Ready && i.PID != before.PID }, "web.1")
	if alive(before.PID) {
		t.Error("the hung process lives")
	}
}

func TestTCPHealthIsReadyWhenItAccepts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	spec := w.sleeper("a.1")
	spec.Health = &plan.Health{TCP: address, Interval: 10 * time.Millisecond}
	v.apply(t, spec)
	v.awaitThat(t, "running", func(i status.Instance) bool { return i.State == status.Starting && i.PID != 0 }, "a.1")
	l, err = net.Listen("tcp", address)
	must(t, err)
	defer l.Close()
	v.await(t, status.Ready, "a.1")
}

func TestNotifyIsReadyOnItsDatagram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	must(t, syscall.Mkfifo(w.path("gate"), 0o600))
	spec := w.spec("a.1", "notifier", w.path("gate"))
	spec.Health = &plan.Health{Notify: true}
	v.apply(t, spec, w.sleeper("b.1", plan.Need{Service: "a"}))
	v.awaitThat(t, "running", func(i status.Instance) bool { return i.State == status.Starting && i.PID != 0 }, "a.1")
	waiting := func(i status.Instance) bool { return i.State == status.Pending && i.Reason == "needs a: starting" }
	v.awaitThat(t, "waiting", waiting, "b.1")
	gate, err := os.OpenFile(w.path("gate"), os.O_WRONLY, 0) // returns once the other end is open
	must(t, err)
	must(t, gate.Close())
	v.await(t, status.Ready, "a.1", "b.1")
}

func TestNotReadyWithinTheGraceCountsAsCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.supervise(t)
	spec := w.starting("a.1")
	spec.Health.Grace = 50 * time.Millisecond
	spec.Restart = plan.Restart{Delay: time.Hour, Max: time.Hour}
	v.apply(t, spec)
	if i := v.await(t, status.Backoff, "a.1"); i.Reason != "not ready within 50ms" {
		t.Errorf("%+v", i)
	}
	ctx, cancel := patient()
	defer cancel()
	if err := v.Start(ctx, "a.1"); err == nil || !strings.Contains(err.Error(), "not ready within 50ms") {
		t.Errorf("start says %v", err)
	}
}
