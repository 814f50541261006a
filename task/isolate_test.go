package task_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// isolatedKind does what its arguments say, in a child.
var isolatedKind = task.NewResultKind[string, string](kindName, task.Config{
	Attempts: 5, Backoff: time.Millisecond, MaxBackoff: time.Millisecond, Timeout: 5 * time.Second, Crashes: 2, Keep: time.Hour,
})

// envMemory is the bound of a child's memory, in MiB.
const envMemory = "TASK_TEST_MEMORY"

// isolatedChild is a service whose handler runs in children of its own.
func isolatedChild() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	isolate := &task.Isolation{Tasks: 3}
	if os.Getenv(envMemory) != "" {
		isolate = &task.Isolation{MemoryBytes: 128 << 20}
	}
	conn, err := bus.FromEnv(ctx, nil)
	if err == nil {
		err = task.NewResultWorker(conn, isolatedKind, misbehave, task.WorkerConfig{
			Concurrency: 4, DrainGrace: time.Second, Isolate: isolate, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil)),
		}).Run(ctx)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if task.IsolatedKind() == "" {
		fmt.Println("ended in order")
	}
}

var hoard [][]byte

func misbehave(ctx context.Context, t task.Task[string]) (string, error) {
	switch t.Args {
	case "panic":
		panic("in the handler")
	case "exit":
		os.Exit(3)
	case "memory": // of a limit
		limit := &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
		if err := syscall.Setrlimit(syscall.RLIMIT_AS, limit); err != nil {
			return "", err
		}
		for {
			hoard = append(hoard, make([]byte, 64<<20))
		}
	case "grow": // without one
		for range time.Tick(5 * time.Millisecond) {
			if ctx.Err() != nil {
				break
			}
			block := make([]byte, 8<<20)
			for i := range block {
				block[i] = 1
			}
			hoard = append(hoard, block)
		}
		return "", ctx.Err()
	case "hang":
		fmt.Println("hangs")
		for {
			time.Sleep(time.Hour) //nolint:forbidigo // it heeds nothing
		}
	case "wait":
		t.Progress(40, "half way")
		fmt.Println("waits")
		<-ctx.Done()
		return "", ctx.Err()
	case "reject":
		return "", task.Reject(errors.New("never"))
	case "snooze":
		if _, err := os.Stat(os.Getenv(envRelease)); err != nil {
			return "", errors.Join(os.WriteFile(os.Getenv(envRelease), nil, 0o600), task.Snooze(10*time.Millisecond))
		}
	}
	return fmt.Sprintf("%s by %d of %d", t.Args, os.Getpid(), os.Getppid()), nil
}

// isolated starts the service and returns how its tasks are enqueued.
func isolated(t *testing.T, env ...string) (service *testkit.Process, enqueue func(args string) task.ResultHandle[string]) {
	t.Helper()
	w := newWorld(t)
	service = w.child(t, "isolated", append(env, envRelease+"="+testkit.TempDir(t)+"/released")...)
	return service, func(args string) task.ResultHandle[string] {
		t.Helper()
		h, err := isolatedKind.Enqueue(testkit.Context(t), w.conn, args)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
}

func TestWhatAHandlerDoesToItsProcessStaysInAChild(t *testing.T) {
	t.Parallel()
	service, enqueue := isolated(t)
	handles := map[string]task.ResultHandle[string]{}
	for _, how := range []string{"panic", "exit", "memory", "reject", "snooze"} {
		handles[how] = enqueue(how)
	}
	var good []task.ResultHandle[string]
	for range 20 {
		good = append(good, enqueue("good"))
	}
	pids := map[string]bool{}
	for _, h := range good {
		result, err := h.Wait(testkit.Context(t))
		var pid, parent int
		if n, _ := fmt.Sscanf(result, "good by %d of %d", &pid, &parent); err != nil || n != 2 || parent != service.PID || pid == service.PID {
			t.Fatalf("a neighbour gives %q, %v; the service is process %d", result, err, service.PID)
		}
		pids[result] = true
	}
	if len(pids) < 20/3 {
		t.Errorf("20 tasks were done by %d children of 3 tasks each", len(pids))
	}
	for how, want := range map[string]struct {
		state task.State
		code  string
		tries int
	}{
		"panic": {task.Dead, task.CodePanic, 5}, "exit": {task.Dead, task.CodeCrashed, 2}, "memory": {task.Dead, task.CodeCrashed, 2},
		"reject": {task.Dead, task.CodeRejected, 1}, "snooze": {task.Done, "", 1},
	} {
		s, err := handles[how].Handle.Wait(testkit.Context(t))
		if s.State != want.state || s.Code != want.code || s.Attempt != want.tries {
			t.Errorf("%s: %s after %d attempts with %s (%v), want %+v", how, s.State, s.Attempt, s.Code, err, want)
		}
	}
	service.Signal(t, syscall.SIGTERM)
	testkit.Wait(t, service.Done)
	if err := service.Err(); err != nil || !strings.Contains(service.Output(), "ended in order") {
		t.Errorf("the service ended with %v", err)
	}
}

func TestIsolatedTaskIsCancelledTimedOutAndSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	service, enqueue := isolated(t)
	waits, hangs := enqueue("wait"), enqueue("hang")
	testkit.Eventually(t, func() bool {
		s, err := waits.Status(testkit.Context(t))
		return err == nil && s.Progress == 40 && s.Note == "half way"
	}, "progress is known")
	testkit.Eventually(t, func() bool { return strings.Contains(service.Output(), "hangs") }, "the other one hangs")
	for _, h := range []task.ResultHandle[string]{waits, hangs} {
		if err := h.Cancel(testkit.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	// Both have left their handlers: all four do something else.
	var good []task.ResultHandle[string]
	for range 8 {
		good = append(good, enqueue("good"))
	}
	late := enqueue("hang")
	for _, h := range good {
		if _, err := h.Wait(testkit.Context(t)); err != nil {
			t.Error(err)
		}
	}
	testkit.Eventually(t, func() bool {
		s, err := late.Status(testkit.Context(t))
		return err == nil && s.Code == task.CodeTimeout
	}, "a handler that heeds nothing has overrun its time")
}

func TestChildThatTakesTooMuchMemoryIsKilled(t *testing.T) {
	t.Parallel()
	_, enqueue := isolated(t, envMemory+"=1")
	s, _ := enqueue("grow").Handle.Wait(testkit.Context(t))
	if s.State != task.Dead || s.Code != task.CodeCrashed || !strings.Contains(s.Error, "killed") {
		t.Errorf("it is %s with %s: %s", s.State, s.Code, s.Error)
	}
}

// A killed service leaves no child behind that hangs.
func TestChildEndsWithItsParent(t *testing.T) {
	t.Parallel()
	service, enqueue := isolated(t)
	enqueue("hang")
	testkit.Eventually(t, func() bool { return strings.Contains(service.Output(), "hangs") }, "the handler hangs")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", service.PID, service.PID))
	if err != nil {
		t.Fatal(err)
	}
	// Threads other than the first may have made it.
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", service.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		more, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", service.PID, thread.Name()))
		if err == nil {
			children = append(children, more...)
		}
	}
	if len(strings.Fields(string(children))) == 0 {
		t.Fatal("the service has no children")
	}
	service.Signal(t, syscall.SIGKILL)
	testkit.Eventually(t, func() bool {
		for pid := range strings.FieldsSeq(string(children)) {
			if state, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(state), ") Z ") {
				return false
			}
		}
		return true
	}, "its children have ended")
}
