package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/cli"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// The test binary is also the hozo binary and the programs of the manifests: the first argument says which.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		if spoilt(os.Args[1]) {
			fmt.Fprintln(os.Stderr, "this version is spoilt")
			os.Exit(1)
		}
		if os.Args[1] == "tiny" { // of events.raw, or of the stream that is named
			hozo.Main(hozo.Stage(bus.NewTopic[[]byte](append(os.Args, "events.raw")[2]), tiny))
			return
		}
		if os.Args[1] == "traced" {
			hozo.Main(hozo.Stage(bus.NewTopic[[]byte]("events.raw.in"), traced))
			return
		}
		if os.Args[1] == "count" {
			os.Exit(count(os.Args[2]))
		}
		if os.Args[1] == "gated" {
			hozo.Main(hozo.Stage(bus.NewTopic[[]byte]("events.raw"), gated))
			return
		}
		if os.Args[1] == "gatedtask" {
			hozo.Main(hozo.Handle(gatedTask, func(ctx context.Context, _ task.Task[string]) error { return atGate(ctx) }))
			return
		}
		if os.Args[1] == "notetask" {
			hozo.Main(hozo.Handle(noteTask, note))
			return
		}
		if os.Args[1] == "gatedweb" {
			hozo.Main(hozo.HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = atGate(r.Context()) })))
			return
		}
		if os.Args[1] == "echo" {
			hozo.Main(hozo.Serve(echoCall, func(_ context.Context, question []byte) ([]byte, error) { return question, nil }))
			return
		}
		if os.Args[1] == "web" {
			serveHTTP()
			return
		}
		if os.Args[1] == "idle" {
			idle()
			return
		}
		os.Exit(cli.Main(context.Background(), cli.OS()))
	}
	testkit.Main(m)
}

// tiny is a service's handler: it takes every event but bad ones.
func tiny(_ context.Context, e bus.Event[[]byte], _ *bus.Out) error {
	if strings.HasPrefix(string(e.Data), "bad") {
		return bus.Reject("tiny/bad", errors.New("it is bad"))
	}
	return nil
}

// count prints numbered lines until TERM; then it leaves the number of lines in dir and ends with status 17.
func count(dir string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		fmt.Printf("line %d\n", i)
		select {
		case <-tick.C:
		case <-term:
			path := filepath.Join(dir, os.Getenv(wire.EnvService)+"."+os.Getenv(wire.EnvInstance))
			if os.WriteFile(path, []byte(strconv.Itoa(i+1)), 0o600) != nil {
				return 1
			}
			return 17
		}
	}
}

// gated is a handler that takes as long as the gate is closed.
func gated(ctx context.Context, _ bus.Event[[]byte], _ *bus.Out) error { return atGate(ctx) }

// atGate waits for the file that GATE names.
func atGate(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(os.Getenv("GATE")); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// idle is an unmodified program: it knows nothing of Hozo and ends when its input does, which is never.
func idle() { select {} }

const manifestHead = `project: test
streams:
  events.raw: { max_bytes: 64MiB }
services:
`

// services of the usual manifest; %[1]s is the test binary.
const manifestServices = `  worker:
    run: "%[1]s tiny"
    scale: %[2]d
    health: notify
    consumes: [events.raw]
    restart: { delay: 20ms }
  feeder:
    run: "%[1]s idle"
    publishes: [events.raw]
`

// project is a project that runs: a keeper process, which runs a node, which runs the rest.
type project struct {
	dir, state, file string
	self             string
	client           *node.Client
	keeper           *exec.Cmd
	ended            chan struct{} // closed when the keeper has ended
}

func up(t *testing.T, services string, args ...any) *project {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return upIn(t, testkit.TempDir(t), self, services, args...)
}

// upFrom is up with a copy of this binary in another place.
func upFrom(t *testing.T, self, services string, args ...any) *project {
	t.Helper()
	return upIn(t, testkit.TempDir(t), self, services, args...)
}

// upIn starts a project in dir with self as the hozo binary and the program of its services.
func upIn(t *testing.T, dir, self, services string, args ...any) *project {
	t.Helper()
	return upWith(t, dir, self, manifestHead+fmt.Sprintf(services, append([]any{self}, args...)...))
}

// upWith starts a project of this manifest.
func upWith(t *testing.T, dir, self, manifest string) *project {
	t.Helper()
	p := &project{dir: dir, state: filepath.Join(dir, "s"), file: filepath.Join(dir, "hozo.yaml"), self: self, ended: make(chan struct{})}
	p.write(t, manifest)
	p.client = node.NewClient(p.state)
	p.keeper = exec.Command(self, "keeper", "--state", p.state, "--file", p.file)
	log, err := os.Create(filepath.Join(dir, "keeper.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.keeper.Stdout, p.keeper.Stderr = log, log
	p.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.keeper.Start(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = p.keeper.Wait() // how it ended is the log's affair
		close(p.ended)
	})
	t.Cleanup(func() {
		if t.Failed() {
			p.showLogs(t)
		}
		p.end(t)
		wg.Wait()
	})
	p.await(t, "everything ready", ready)
	return p
}

// end stops a project that still runs, by the keeper alone.
func (p *project) end(t *testing.T) {
	if p.over() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience) // t's own is over
	defer cancel()
	k, err := keeper.Dial(ctx, keeper.SocketPath(p.state))
	if err == nil {
		err = k.Shutdown(ctx)
		defer k.Close()
	}
	if err != nil {
		t.Errorf("end the project: %v", err)
		_ = p.keeper.Process.Kill()
	}
	p.awaitOver(t)
}

// over says whether keeper and standby have ended. The process that was started may have been killed long before.
func (p *project) over() bool {
	lock, err := os.Open(filepath.Join(p.state, "keeper.lock"))
	if err != nil {
		return true // it never began
	}
	defer lock.Close()
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

func (p *project) awaitOver(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, p.over, "keeper and standby have ended")
	testkit.Wait(t, p.ended)
}

func (p *project) write(t *testing.T, manifest string) {
	t.Helper()
	if err := os.WriteFile(p.file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rewrite puts other services into the manifest and applies it.
func (p *project) rewrite(t *testing.T, services string, args ...any) ([]plan.Step, error) {
	t.Helper()
	p.write(t, manifestHead+fmt.Sprintf(services, append([]any{p.self}, args...)...))
	return p.client.Apply(testkit.Context(t), p.file, "")
}

func (p *project) showLogs(t *testing.T) {
	logs, _ := filepath.Glob(filepath.Join(p.state, "logs", "*"))
	for _, path := range append(logs, filepath.Join(p.dir, "keeper.log")) {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
			t.Logf("%s:\n%s", path, data[max(0, len(data)-4000):])
		}
	}
}

// await waits until the status fulfils cond and returns it.
func (p *project) await(t *testing.T, what string, cond func(status.Snapshot) bool) status.Snapshot {
	t.Helper()
	var last status.Snapshot
	testkit.Eventually(t, func() bool {
		s, err := p.client.Status(testkit.Context(t))
		if err == nil {
			last = s
		}
		return err == nil && cond(s)
	}, what)
	return last
}

func (p *project) status(t *testing.T) status.Snapshot {
	t.Helper()
	return p.await(t, "a status", func(status.Snapshot) bool { return true })
}

func ready(s status.Snapshot) bool {
	total := 0
	for _, service := range s.Services {
		if len(service.Instances) != service.Scale {
			return false
		}
		for _, i := range service.Instances {
			total++
			if i.State != status.Ready {
				return false
			}
		}
	}
	return total > 0 && len(s.Streams) > 0
}

// pids maps instances to their processes.
func pids(s status.Snapshot) map[string]int {
	all := map[string]int{}
	for _, service := range s.Services {
		for _, i := range service.Instances {
			all[i.Name] = i.PID
		}
	}
	return all
}

func platform(t *testing.T, s status.Snapshot, name string) status.Process {
	t.Helper()
	i := slices.IndexFunc(s.Platform, func(p status.Process) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("status shows no %s", name)
	}
	return s.Platform[i]
}

func service(s status.Snapshot, name string) status.Service {
	for _, one := range s.Services {
		if one.Name == name {
			return one
		}
	}
	return status.Service{}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("pid %d is nobody's to kill", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// feed publishes events as the feeder does: with its grant.
func (p *project) feed(t *testing.T, events ...string) {
	t.Helper()
	p.feedTo(t, "events.raw", events...)
}

// feedTo is feed of another subject.
func (p *project) feedTo(t *testing.T, subject string, events ...string) {
	t.Helper()
	grant, err := wire.ReadGrant(filepath.Join(p.state, "grants", "feeder.1.json"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	conn, err := bus.Connect(ctx, bus.Config{Grant: grant, URL: p.bus(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Errorf("close the feeder: %v", err)
		}
	}()
	topic := bus.NewTopic[[]byte](subject)
	for _, e := range events {
		if _, err := topic.Publish(ctx, conn, []byte(e)); err != nil {
			t.Fatalf("publish %q: %v", e, err)
		}
	}
}

// admin connects as the node does.
func (p *project) admin(t *testing.T) jetstream.JetStream {
	t.Helper()
	var own struct{ Password string }
	data, err := os.ReadFile(filepath.Join(p.state, "grants", "node.json"))
	if err == nil {
		err = json.Unmarshal(data, &own)
	}
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(p.bus(t), nats.UserInfo(broker.PlatformUser, own.Password), nats.Timeout(testkit.Patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// bus is the broker's address.
func (p *project) bus(t *testing.T) string {
	t.Helper()
	port, err := os.ReadFile(filepath.Join(p.state, "broker", "port"))
	if err != nil {
		t.Fatal(err)
	}
	return "nats://" + net.JoinHostPort("127.0.0.1", strings.TrimSpace(string(port)))
}

func eventsIn(name string, want uint64) func(status.Snapshot) bool {
	return func(s status.Snapshot) bool { return service(s, name).Traffic.EventsIn == want }
}

// processes lists the processes whose command line or environment names text.
func processes(t *testing.T, text string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, file := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join("/proc", e.Name(), file))
			if err == nil && strings.Contains(string(data), text) {
				found = append(found, e.Name()+" "+strings.ReplaceAll(string(data), "\x00", " "))
				break
			}
		}
	}
	return found
}
