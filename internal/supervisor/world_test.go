package supervisor_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/supervisor"
)

// patience bounds every wait of these tests; nothing takes nearly as long unless it hangs.
const patience = 20 * time.Second

// quickExit keeps the race detector from waiting a second at the end of each program.
const quickExit = "GORACE=atexit_sleep_ms=0"

// failer is a *testing.T or a *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a real keeper in a process of its own, and a directory.
type world struct {
	dir    string
	self   string // the test binary, which plays every program
	client *keeper.Client
	ahead  atomic.Int64 // nanoseconds by which its clock on the wall is ahead
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// set sets the clock on the wall.
func (w *world) set(to time.Time) { w.ahead.Store(int64(time.Until(to))) }

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "hz") // t.TempDir is too long for the keeper's socket
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	self, err := os.Executable()
	must(t, err)
	state := filepath.Join(dir, "state")
	cmd := exec.Command(self, "keeper", state)
	cmd.Env = append(os.Environ(), quickExit)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the keeper says %q, %v", line, err)
	}
	client, err := keeper.Dial(t.Context(), keeper.SocketPath(state))
	must(t, err)
	t.Cleanup(func() {
		// Everything that still runs is the keeper's; nothing may outlive the test.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		processes, _, err := client.List(ctx)
		must(t, err)
		for _, p := range processes {
			_ = client.Kill(ctx, p.Name) // it may have ended
		}
		must(t, client.Shutdown(ctx))
		must(t, cmd.Wait())
		must(t, client.Close())
	})
	return &world{dir: dir, self: self, client: client}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// spec is an instance that plays a role; everything is quick.
func (w *world) spec(name, role string, args ...string) plan.Spec {
	service, _, _ := strings.Cut(name, ".")
	return plan.Spec{
		Name: name, Service: service, Argv: append([]string{w.self, role}, args...), Dir: w.dir, Env: []string{quickExit},
		Restart: plan.Restart{Delay: 10 * time.Millisecond, Max: 50 * time.Millisecond, Reset: time.Minute, Budget: 1000},
		Stop:    plan.Stop{Grace: 10 * time.Second},
		Log:     plan.Log{Path: w.path(name + ".log"), MaxBytes: 1 << 20, Keep: 1},
	}
}

// sleeper is an instance that runs until it is told to stop.
func (w *world) sleeper(name string, needs ...plan.Need) plan.Spec {
	s := w.spec(name, "sleeper", w.path(name+".lock"))
	s.Needs = needs
	return s
}

// watched is a running supervisor and the events that it told.
type watched struct {
	*supervisor.Supervisor
	stop func() // ends it and waits

	mu     sync.Mutex
	events []supervisor.Event
}

// supervise runs a supervisor until stop or the end of the test.
func (w *world) supervise(t *testing.T) *watched {
	t.Helper()
	return w.superviseBy(t, w.client)
}

// superviseBy is supervise by way of another view of the keeper.
func (w *world) superviseBy(t *testing.T, k supervisor.Keeper) *watched {
	t.Helper()
	v := &watched{}
	v.Supervisor = supervisor.New(supervisor.Config{Keeper: k, Stopped: w.path("stopped.json"), Ticks: w.path("schedule.json"), Now: w.now, OnEvent: func(e supervisor.Event) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.events = append(v.events, e)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	v.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(v.stop)
	<-v.Ready()
	return v
}

func (v *watched) apply(t failer, specs ...plan.Spec) []plan.Step {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	steps, err := v.Apply(ctx, specs)
	must(t, err)
	return steps
}

// await waits until every named instance is in a state, and returns the first.
func (v *watched) await(t failer, state status.State, names ...string) status.Instance {
	t.Helper()
	return v.awaitThat(t, string(state), func(i status.Instance) bool { return i.State == state }, names...)
}

func (v *watched) awaitThat(t failer, what string, is func(status.Instance) bool, names ...string) status.Instance {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	var first status.Instance
	err := v.Wait(ctx, func(all []status.Instance) bool {
		met := 0
		for _, i := range all {
			for n, name := range names {
				if i.Name == name && is(i) {
					met++
					if n == 0 {
						first = i
					}
				}
			}
		}
		return met == len(names)
	})
	if err != nil {
		t.Fatalf("waiting for %v to be %s: %v; they are %s", names, what, err, v.summary())
	}
	return first
}

func (v *watched) summary() string {
	var b strings.Builder
	for _, i := range v.Instances() {
		fmt.Fprintf(&b, "%s %s (%s, %d restarts); ", i.Name, i.State, i.Reason, i.Restarts)
	}
	return b.String()
}

func (v *watched) get(t failer, name string) status.Instance {
	t.Helper()
	for _, i := range v.Instances() {
		if i.Name == name {
			return i
		}
	}
	t.Fatalf("there is no %s in %s", name, v.summary())
	return status.Instance{}
}

// told returns the events of an instance so far.
func (v *watched) told(name string) []supervisor.Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	var of []supervisor.Event
	for _, e := range v.events {
		if e.Instance == name {
			of = append(of, e)
		}
	}
	return of
}

// appears waits for a file that another process writes.
func appears(t failer, path string) string {
	t.Helper()
	var content []byte
	waitFor(t, path+" to appear", func() bool {
		var err error
		content, err = os.ReadFile(path)
		return err == nil && len(content) > 0
	})
	return string(content)
}

// waitFor waits for something in another process that sends no event.
func waitFor(t failer, what string, done func() bool) {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("nothing within %s", patience))
}

func must(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}
