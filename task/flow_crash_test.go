package task_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// Environment of the children of these tests.
const (
	envKinds  = "TASK_TEST_KINDS"  // prefix of the kinds
	envLedger = "TASK_TEST_LEDGER" // file that gets a line for every call of a handler
	envCount  = "TASK_TEST_COUNT"  // at which of the steps named envStep the child ends itself
)

// drill are the kinds of one workflow of these tests: a, then b and c, then d with both results, then e, which fails, and f,
// which is told so.
type drill struct {
	one   task.ResultKind[string, string]
	join  task.ResultKind[[]string, string]
	alert task.Kind[task.Failure]
}

func drillOf(prefix string) drill {
	return drill{
		task.NewResultKind[string, string](prefix+".one", quick), task.NewResultKind[[]string, string](prefix+".join", quick),
		task.NewKind[task.Failure](prefix+".alert", quick),
	}
}

func (d drill) kinds() []string { return []string{d.one.Name(), d.join.Name(), d.alert.Name()} }

func (d drill) grant(t *testing.T, b *testkit.TestBroker) wire.Grant {
	t.Helper()
	return b.Grant(t, wire.Grant{
		Service: "drill", Handles: d.kinds(), Enqueues: d.kinds(),
		Queues: []wire.TaskQueue{{Name: d.one.Name(), Kinds: d.kinds()}},
	})
}

func (d drill) flow(t *testing.T) *task.Flow {
	t.Helper()
	a := d.one.With("").Named("a")
	b, c := task.Then(a, d.one).Named("b"), task.Then(a, d.one).Named("c")
	e := task.Then(task.Then(task.Group(b, c), d.join).Named("d"), d.one).Named("e")
	return defined(t, task.FlowConfig{}, e, task.OnFailure(d.alert, e).Named("f"))
}

// workers do the tasks and note each call in the ledger.
func (d drill) workers(conn *bus.Conn, ledger string) (all []interface{ Run(context.Context) error }) {
	cfg := task.WorkerConfig{Concurrency: 1}
	return append(all,
		task.NewResultWorker(conn, d.one, func(_ context.Context, one task.Task[string]) (string, error) {
			name := one.ID[strings.LastIndexByte(one.ID, ':')+1:]
			if err := writeLine(ledger, name+" "+one.Args); err != nil || name != "e" {
				return one.Args + name, err
			}
			return "", task.Reject(errors.New("e never ends well"))
		}, cfg),
		task.NewResultWorker(conn, d.join, func(_ context.Context, one task.Task[[]string]) (string, error) {
			return "d", writeLine(ledger, "d "+strings.Join(one.Args, "+"))
		}, cfg),
		task.NewWorker(conn, d.alert, func(_ context.Context, one task.Task[task.Failure]) error {
			return writeLine(ledger, "f "+one.Args.Task)
		}, cfg),
	)
}

func writeLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

// drillChild does the tasks of a drill until it comes to a step for the nth time, and ends itself there.
func drillChild() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n, err := strconv.Atoi(os.Getenv(envCount))
	var seen atomic.Int64
	wanted, die := os.Getenv(envStep), killAt(os.Getenv(envStep))
	task.OnStep(func(name string) {
		if name == wanted && seen.Add(1) == int64(n) {
			die(name)
		}
	})
	var conn *bus.Conn
	if err == nil {
		conn, err = bus.FromEnv(ctx, nil)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for _, w := range drillOf(os.Getenv(envKinds)).workers(conn, os.Getenv(envLedger)) {
		wg.Go(func() {
			if err := w.Run(ctx); err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
}

// Every worker of a workflow of six tasks is killed at a step, another goes on, and what had ended is not run again.
// HOZO_DRILL_FLOWS=all kills at every step of every task.
func TestKillAtAnyStepOfAWorkflowRunsNothingTwiceThatHadEnded(t *testing.T) {
	t.Parallel()
	type place struct {
		step string
		n    int
	}
	places := []place{
		{"handler returned", 2},
		{"end recorded", 1},
		{"arrival recorded", 2},
		{"arrival recorded", 4},
		{"next task stored", 3},
		{"followers told", 3},
		{"death recorded", 1},
		{"next task stored", 5},
	}
	if os.Getenv("HOZO_DRILL_FLOWS") == "all" {
		places = nil
		for step, times := range map[string]int{
			"handler returned": 6, "end recorded": 5, "death recorded": 1, "letter stored": 1, "arrival recorded": 6, "next task stored": 5, "followers told": 6,
		} {
			for n := range times {
				places = append(places, place{step, n + 1})
			}
		}
	}
	w, dir := &world{TestBroker: testkit.Broker(t)}, testkit.TempDir(t)
	var victims []*victim
	for i, at := range places { // all at once: each waits for the broker to give a task away
		v := &victim{name: fmt.Sprintf("%s %d", at.step, at.n), step: at.step, drill: drillOf(fmt.Sprintf("drill%d", i)), ledger: filepath.Join(dir, strconv.Itoa(i))}
		v.conn = w.connectAs(t, v.grant(t, w.TestBroker))
		var err error
		if v.h, err = v.flow(t).Start(testkit.Context(t), v.conn); err != nil {
			t.Fatal(err)
		}
		v.child = w.childAs(t, v.grant(t, w.TestBroker), "drill",
			fmt.Sprintf("%s=drill%d", envKinds, i), envLedger+"="+v.ledger, envStep+"="+at.step, envCount+"="+strconv.Itoa(at.n))
		victims = append(victims, v)
	}
	for _, v := range victims {
		testkit.Wait(t, v.child.Done)
		if err := v.child.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%s: the child ended by %v", v.name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, v := range victims {
		for _, worker := range v.workers(v.conn, v.ledger) {
			wg.Go(func() {
				if err := worker.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
	}
	for _, v := range victims {
		v.check(t, w)
	}
}

// victim is a workflow whose first worker is killed.
type victim struct {
	drill
	name, step, ledger string
	conn               *bus.Conn
	h                  task.FlowHandle
	child              *testkit.Process
}

// check waits for the end of the workflow and counts the calls of its handlers.
func (v *victim) check(t *testing.T, w *world) {
	t.Helper()
	s, err := v.h.Wait(testkit.Context(t))
	if want := "a done, b done, c done, d done, e dead, f done"; err == nil || states(s) != want {
		t.Errorf("%s: the tasks are %s, %v; want %s", v.name, states(s), err, want)
	}
	lines, err := os.ReadFile(v.ledger)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for line := range strings.Lines(string(lines)) {
		calls[strings.TrimSuffix(line, "\n")]++
	}
	extra := 0
	for _, want := range []string{"a ", "b a", "c a", "d ab+ac", "e d", "f e"} {
		if calls[want] < 1 {
			t.Errorf("%s: %q was not run", v.name, want)
		}
		extra += calls[want] - 1
		delete(calls, want)
	}
	allowed := 0
	if v.step == "handler returned" {
		allowed = 1 // its end was not recorded
	}
	if extra != allowed || len(calls) > 0 {
		t.Errorf("%s: %d calls were too many, want %d, and %v were unexpected", v.name, extra, allowed, calls)
	}
	if n := w.lettersOf(t, v.one.Name()); n != 1 {
		t.Errorf("%s: %d dead letters", v.name, n)
	}
}

// lettersOf counts the dead letters of a queue.
func (w *world) lettersOf(t *testing.T, queue string) (n int) {
	t.Helper()
	for _, letter := range w.deadLetters(t) {
		if strings.HasPrefix(letter.Header.Get(wire.HeaderSource), wire.QueueStream(queue)+":") {
			n++
		}
	}
	return n
}

// joinedChild does the tasks that a join waits for.
func joinedChild() {
	conn, err := bus.FromEnv(context.Background(), nil)
	if err == nil {
		d := drillOf(os.Getenv(envKinds))
		err = task.NewResultWorker(conn, d.one, func(_ context.Context, one task.Task[string]) (string, error) {
			fmt.Println("did", one.Args)
			return one.Args, nil
		}, task.WorkerConfig{Concurrency: 4}).Run(context.Background())
	}
	fmt.Println(err)
	os.Exit(1)
}

// A hundred tasks are done by workers that are killed again and again, and what waits for all of them begins once.
func TestJoinOfAHundredBeginsOnceWhileWorkersAreKilled(t *testing.T) {
	t.Parallel()
	const width = 100
	d := drillOf("joined")
	w := &world{TestBroker: testkit.Broker(t)}
	conn := w.connectAs(t, d.grant(t, w.TestBroker))
	var parts []*task.Node[string]
	for i := range width {
		parts = append(parts, d.one.With(strconv.Itoa(i)))
	}
	out := task.Then(task.Group(parts...), d.join)
	h, err := defined(t, task.FlowConfig{}, out).Start(testkit.Context(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan []string, 8) // more than once would be wrong
	runs(t, task.NewResultWorker(conn, d.join, func(_ context.Context, one task.Task[[]string]) (string, error) {
		begun <- one.Args
		return "", nil
	}, task.WorkerConfig{}))
	child := func() *testkit.Process {
		return w.childAs(t, d.grant(t, w.TestBroker), "joined", envKinds+"=joined")
	}
	children := []*testkit.Process{child(), child()}
	for kill := range 4 {
		victim := children[kill%len(children)]
		testkit.Eventually(t, func() bool { return strings.Contains(victim.Output(), "did") || len(begun) > 0 }, "a worker is at work")
		victim.Kill(t)
		children[kill%len(children)] = child()
	}
	args := testkit.Wait(t, begun)
	for i, arg := range args {
		if arg != strconv.Itoa(i) {
			t.Errorf("the %d-th result is %q", i, arg)
		}
	}
	if s, err := h.Wait(testkit.Context(t)); err != nil || s.State != task.Done {
		t.Errorf("the workflow is %s, %v", s.State, err)
	}
	queue := wire.QueueStream(d.one.Name())
	testkit.Eventually(t, func() bool { return w.info(t, queue).State.Msgs == 0 }, "the queue is empty")
	if len(args) != width || len(begun) != 0 {
		t.Errorf("it began with %d results, and %d times more", len(args), len(begun))
	}
}
