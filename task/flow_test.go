package task_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// The kinds of these tests: pages are fetched, made small and large, and published together.
type page struct{ Body string }

var (
	fetch  = task.NewResultKind[string, page]("page.fetch", quick)
	shrink = task.NewResultKind[page, string]("page.shrink", quick)
	grow   = task.NewResultKind[page, string]("page.grow", quick)
	join   = task.NewResultKind[[]string, string]("page.join", quick)
	note   = task.NewKind[string]("page.note", quick)
	alert  = task.NewKind[task.Failure]("page.alert", quick)

	flowKinds = []string{fetch.Name(), shrink.Name(), grow.Name(), join.Name(), note.Name(), alert.Name()}
)

// flows is a broker and a service that does everything of workflows.
type flows struct {
	*world
	mu     sync.Mutex
	ran    []string // kind and arguments of what was run
	broken map[string]error
}

func flowGrant(g wire.Grant) wire.Grant {
	g.Queues = []wire.TaskQueue{{Name: "pages", Kinds: flowKinds}}
	return g
}

func newFlows(t *testing.T) *flows {
	t.Helper()
	f := &flows{world: &world{TestBroker: testkit.Broker(t)}, broken: map[string]error{}}
	f.conn = f.as(t, wire.Grant{Service: "pages", Handles: flowKinds, Enqueues: flowKinds})
	return f
}

// as connects a service that declares what g says.
func (f *flows) as(t *testing.T, g wire.Grant) *bus.Conn {
	t.Helper()
	return f.connectAs(t, f.Grant(t, flowGrant(g)))
}

// did notes what is run and returns why it should fail.
func (f *flows) did(kind, args string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ran = append(f.ran, kind+" "+args)
	return f.broken[kind]
}

func (f *flows) breaks(kind string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[kind] = err
}

// runs is what was run so far.
func (f *flows) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.ran...)
}

// serve runs workers of all kinds.
func (f *flows) serve(t *testing.T, conn *bus.Conn) {
	t.Helper()
	cfg := task.WorkerConfig{Logger: testkit.Logger(t)}
	runs(t, task.NewResultWorker(conn, fetch, func(_ context.Context, one task.Task[string]) (page, error) {
		return page{"<" + one.Args + ">"}, f.did("fetch", one.Args)
	}, cfg))
	runs(t, task.NewResultWorker(conn, shrink, func(_ context.Context, one task.Task[page]) (string, error) {
		return "small" + one.Args.Body, f.did("shrink", one.Args.Body)
	}, cfg))
	runs(t, task.NewResultWorker(conn, grow, func(_ context.Context, one task.Task[page]) (string, error) {
		return "large" + one.Args.Body, f.did("grow", one.Args.Body)
	}, cfg))
	runs(t, task.NewResultWorker(conn, join, func(_ context.Context, one task.Task[[]string]) (string, error) {
		return strings.Join(one.Args, "+"), f.did("join", strings.Join(one.Args, "+"))
	}, cfg))
	runs(t, task.NewWorker(conn, note, func(_ context.Context, one task.Task[string]) error {
		return f.did("note", one.Args)
	}, cfg))
	runs(t, task.NewWorker(conn, alert, func(_ context.Context, one task.Task[task.Failure]) error {
		return f.did("alert", one.Args.Task+" "+one.Args.Code+" "+one.Args.What)
	}, cfg))
}

func defined(t *testing.T, cfg task.FlowConfig, members ...task.Member) *task.Flow {
	t.Helper()
	f, err := task.NewFlow("pages", cfg, members...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *flows) start(t *testing.T, flow *task.Flow, opts ...task.Option) task.FlowHandle {
	t.Helper()
	h, err := flow.Start(testkit.Context(t), f.conn, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// states are those of the tasks of a workflow.
func states(s task.FlowStatus) string {
	var all []string
	for _, one := range s.Tasks {
		all = append(all, one.Name+" "+string(one.State))
	}
	return strings.Join(all, ", ")
}

func TestJoinGetsTheResultsInOrder(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	f.serve(t, f.conn)
	got := fetch.With("url").Named("fetch")
	sizes := task.Group(task.Then(got, shrink).Named("small"), task.Then(got, grow).Named("large"))
	out := task.Then(sizes, join)
	after := note.With("told").After(out)
	h := f.start(t, defined(t, task.FlowConfig{}, after, task.OnFailure(alert, after).Named("alert")))
	s, err := h.Wait(testkit.Context(t))
	if err != nil || s.State != task.Done || !s.Ended {
		t.Fatalf("the workflow is %+v, %v", s, err)
	}
	if want := "fetch done, small done, large done, page.join done, page.note done, alert skipped"; states(s) != want {
		t.Errorf("its tasks are %s, want %s", states(s), want)
	}
	if result, err := out.Result(testkit.Context(t), h); err != nil || result != "small<url>+large<url>" {
		t.Errorf("the result is %q, %v", result, err)
	}
	ran := f.all()
	if len(ran) != 5 || ran[0] != "fetch url" || ran[3] != "join small<url>+large<url>" || ran[4] != "note told" {
		t.Errorf("these were run: %q", ran)
	}
}

func TestFailureBranchIsToldOnceAndARetryGoesOn(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	f.serve(t, f.conn)
	f.breaks("grow", task.Reject(errors.New("no memory")))
	f.breaks("shrink", &fault.Error{Code: "page/shrink", What: "too small"})
	got := fetch.With("url").Named("fetch")
	out := task.Then(task.Group(task.Then(got, shrink).Named("small"), task.Then(got, grow).Named("large")), join).Named("out")
	h := f.start(t, defined(t, task.FlowConfig{}, out, note.With("beside").Named("beside"), task.OnFailure(alert, out).Named("alert")))
	s, err := h.Wait(testkit.Context(t))
	if fault.Code(err) != task.CodeFlowFailed || s.State != task.Failed || s.Failure() == nil {
		t.Fatalf("the workflow is %+v, %v", s, err)
	}
	if want := "fetch done, small dead, large dead, out blocked, beside done, alert done"; states(s) != want {
		t.Errorf("its tasks are %s, want %s", states(s), want)
	}
	alerts := 0
	for _, one := range f.all() {
		if strings.HasPrefix(one, "alert") {
			alerts++
			if one != "alert small page/shrink too small" && one != "alert large task/rejected no memory" {
				t.Errorf("the branch was told %q", one)
			}
		}
	}
	if alerts != 1 {
		t.Errorf("the branch was run %d times", alerts)
	}
	f.breaks("grow", nil)
	f.breaks("shrink", nil)
	f.retryDead(t, 2)
	if result, err := out.Result(testkit.Context(t), h); err != nil || result != "small<url>+large<url>" {
		t.Errorf("the result is %q, %v", result, err)
	}
	if s, err := h.Wait(testkit.Context(t)); err != nil || s.State != task.Done {
		t.Errorf("after the retry the workflow is %+v, %v", s, err)
	}
}

// retryDead queues n dead letters again, as the platform does.
func (w *world) retryDead(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, func() bool { return w.info(t, wire.DeadStream).State.Msgs == uint64(n) }, "the dead letters are stored")
	for _, letter := range w.deadLetters(t) {
		w.returnLetter(t, letter)
	}
}

func (w *world) returnLetter(t testing.TB, letter *jetstream.RawStreamMsg) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
	defer cancel()
	if _, err := w.JS.PublishMsg(ctx, task.Revived(letter.Header, letter.Data)); err != nil {
		t.Fatal(err)
	}
	dead, err := w.JS.Stream(ctx, wire.StreamName(wire.DeadStream))
	if err == nil {
		err = dead.DeleteMsg(ctx, letter.Sequence)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFailFastBeginsNothingMore(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	release := make(chan struct{})
	runs(t, task.NewResultWorker(f.conn, fetch, func(_ context.Context, one task.Task[string]) (page, error) {
		if one.Args == "bad" {
			return page{}, task.Reject(errors.New("not found"))
		}
		<-release
		return page{}, nil
	}, task.WorkerConfig{}))
	bad, good := fetch.With("bad").Named("bad"), fetch.With("good").Named("good")
	h := f.start(t, defined(t, task.FlowConfig{FailFast: true}, bad, task.Then(good, shrink).Named("next"), task.OnFailure(alert, bad).Named("alert")))
	testkit.Eventually(t, func() bool {
		s, err := h.Status(testkit.Context(t))
		return err == nil && s.State == task.Failed && s.Tasks[0].State == task.Dead
	}, "the workflow has failed")
	close(release)
	f.serve(t, f.conn)
	s, err := h.Wait(testkit.Context(t))
	if fault.Code(err) != task.CodeFlowFailed || states(s) != "bad dead, good done, next cancelled, alert done" {
		t.Errorf("the workflow is %s: %s, %v", s.State, states(s), err)
	}
}

func TestCancelledWorkflowGoesNoFurther(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	started, ended := make(chan string, 8), make(chan error, 8) // more than are started
	runs(t, task.NewResultWorker(f.conn, fetch, func(ctx context.Context, one task.Task[string]) (page, error) {
		started <- one.Args
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return page{}, nil
	}, task.WorkerConfig{Logger: testkit.Logger(t)}))
	first := fetch.With("url").Named("first")
	later := note.With("later").Named("later").Opts(task.In(time.Hour))
	h := f.start(t, defined(t, task.FlowConfig{}, task.Then(first, shrink).Named("next"), later))
	testkit.Wait(t, started)
	if err := h.Cancel(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	if err := testkit.Wait(t, ended); err == nil || !strings.Contains(err.Error(), "cancelled") {
		t.Errorf("the handler ended by %v", err)
	}
	s, err := h.Wait(testkit.Context(t))
	if fault.Code(err) != task.CodeCancelled || states(s) != "first cancelled, next cancelled, later cancelled" {
		t.Errorf("the workflow is %s: %s, %v", s.State, states(s), err)
	}
	if err := h.Cancel(testkit.Context(t)); err != nil {
		t.Errorf("a second cancel: %v", err)
	}
	if err := task.FindFlow(f.conn, "nosuch").Cancel(testkit.Context(t)); fault.Code(err) != task.CodeUnknown {
		t.Errorf("cancel of an unknown one: %v", err)
	}
}

func TestStartWithAnIDIsOnce(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	f.serve(t, f.conn)
	make := func() *task.Flow { return defined(t, task.FlowConfig{}, task.Then(fetch.With("url"), shrink)) }
	for range 3 {
		h := f.start(t, make(), task.ID("order:17"))
		if _, err := h.Wait(testkit.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	if h := f.start(t, defined(t, task.FlowConfig{}, note.With("other")), task.ID("order:17")); !h.Duplicate {
		t.Error("another workflow took the id")
	}
	if ran := f.all(); len(ran) != 2 {
		t.Errorf("these were run: %q", ran)
	}
}

func TestServiceThatMayNotEnqueueWhatFollowsIsToldWhichLineIsMissing(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	only := f.as(t, wire.Grant{Service: "fetcher", Handles: []string{fetch.Name()}, Enqueues: []string{fetch.Name()}})
	ran := make(chan struct{}, 8) // more than the tries
	limited := runs(t, task.NewResultWorker(only, fetch, func(context.Context, task.Task[string]) (page, error) {
		ran <- struct{}{}
		return page{}, nil
	}, task.WorkerConfig{Logger: testkit.Logger(t)}))
	out := task.Then(fetch.With("url").Named("fetch"), shrink)
	h := f.start(t, defined(t, task.FlowConfig{}, out))
	s, err := h.Wait(testkit.Context(t))
	want := `fetch of the workflow is dead: task page.fetch: service "fetcher" may not enqueue "page.shrink", which follows fetch in a workflow`
	if fault.Code(err) != task.CodeFlowFailed || !strings.Contains(err.Error(), want) || s.Tasks[0].Code != bus.CodeNoRoute || len(ran) != 0 {
		t.Errorf("the workflow is %+v, %v; it was run %d times", s, err, len(ran))
	}
	if err := limited.stop(); err != nil {
		t.Fatal(err)
	}
	f.serve(t, f.conn) // with the line
	f.retryDead(t, 1)
	if result, err := out.Result(testkit.Context(t), h); err != nil || result != "small<url>" {
		t.Errorf("the result is %q, %v", result, err)
	}
	_, err = defined(t, task.FlowConfig{}, out).Start(testkit.Context(t), only)
	if fault.Code(err) != bus.CodeNoRoute || !strings.Contains(err.Error(), `"fetcher" may not enqueue "page.shrink"`) {
		t.Errorf("its start: %v", err)
	}
}

func TestResultsTooLargeForTheNextTaskAreSaid(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	f.serve(t, f.conn)
	big := strings.Repeat("x", 1<<20)
	var parts []*task.Node[string]
	for range 5 {
		parts = append(parts, task.Then(fetch.With(big), shrink))
	}
	h := f.start(t, defined(t, task.FlowConfig{}, task.Then(task.Group(parts...), join)))
	s, err := h.Wait(testkit.Context(t))
	if fault.Code(err) != task.CodeFlowFailed || !strings.Contains(err.Error(), "the results of the 5 tasks before it are over the limit") {
		t.Errorf("the workflow is %s, %v", s.State, err)
	}
}

func TestWorkflowsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	a, b, c := note.With("a").Named("a"), note.With("b").Named("b"), note.With("c").Named("c")
	task.Chain(a, b, c)
	a.After(c)
	self := note.With("self").Named("self")
	self.After(self)
	many := make([]task.Member, task.MaxFlowTasks+1)
	for i := range many {
		many[i] = note.With("")
	}
	dense := make([]*task.Node[task.None], 200)
	for i := range dense {
		dense[i] = note.With("")
		for _, before := range dense[:i] {
			dense[i].After(before)
		}
	}
	for name, test := range map[string]struct {
		members []task.Member
		code    string
		want    string
	}{
		"cycle":         {[]task.Member{c}, task.CodeCycle, "tasks wait for each other: c → a → b → c"},
		"of itself":     {[]task.Member{self}, task.CodeCycle, "self → self"},
		"no task":       {nil, task.CodeBadFlow, "it has no task"},
		"many":          {many, task.CodeBadFlow, "it has 1001 tasks, and 1000 is the limit"},
		"many edges":    {[]task.Member{dense[199]}, task.CodeBadFlow, "its tasks wait for others 19900 times"},
		"two names":     {[]task.Member{note.With("").Named("x"), note.With("").Named("x")}, task.CodeBadFlow, `two of its tasks are named "x"`},
		"bad name":      {[]task.Member{note.With("").Named("a b")}, task.CodeBadFlow, `"a b" cannot be the name of a task`},
		"empty group":   {[]task.Member{task.Then(task.Group[string](), join)}, task.CodeBadOption, "a group of 0 tasks"},
		"no failure":    {[]task.Member{task.OnFailure(alert)}, task.CodeBadOption, "is of no task"},
		"unique":        {[]task.Member{note.With("").Opts(task.Unique("x"))}, task.CodeBadOption, "cannot be unique"},
		"negative":      {[]task.Member{note.With("").Opts(task.In(-time.Second))}, task.CodeBadOption, "lies in the past"},
		"unencodable":   {[]task.Member{task.NewKind[func()]("page.func", quick).With(nil)}, "", "encode arguments of task page.func"},
		"kept too long": {[]task.Member{note.With("")}, task.CodeBadFlow, "cannot be kept for 8760h0m0s"},
	} {
		cfg := task.FlowConfig{}
		if name == "kept too long" {
			cfg.Keep = 365 * 24 * time.Hour
		}
		_, err := task.NewFlow("pages", cfg, test.members...)
		if err == nil || fault.Code(err) != test.code || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStepsThatAreDoneAreSkipped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kind := task.NewKind[image](kindName, quick)
	var mu sync.Mutex
	ran := map[string]int{}
	do := func(name string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			ran[name]++
			return name + strconv.Itoa(ran[name]), nil
		}
	}
	results := make(chan string, 8) // more than the tries
	runs(t, task.NewWorker(w.conn, kind, func(ctx context.Context, one task.Task[image]) error {
		a, err := task.Step(ctx, one, "read", do("read"))
		if err != nil {
			return err
		}
		if one.Attempt == 1 {
			return errors.New("between the steps")
		}
		b, err := task.Step(ctx, one, "write", do("write"))
		if err != nil {
			return err
		}
		results <- a + b
		if one.Args.Path == "twice" {
			_, err = task.Step(ctx, one, "write", do("write"))
		}
		return err
	}, task.WorkerConfig{Logger: testkit.Logger(t)}))
	if _, err := kind.Enqueue(testkit.Context(t), w.conn, image{"once"}); err != nil {
		t.Fatal(err)
	}
	if got := testkit.Wait(t, results); got != "read1write1" {
		t.Errorf("the steps have made %s", got)
	}
	w.waitQueued(t, 0)
	testkit.Eventually(t, func() bool {
		stream, err := w.JS.Stream(testkit.Context(t), wire.StreamName(wire.RecordStream))
		if err != nil {
			return false
		}
		info, err := stream.Info(testkit.Context(t), jetstream.WithSubjectFilter(wire.StepSubject(kindName, "*")))
		return err == nil && len(info.State.Subjects) == 0
	}, "what the steps have left is removed")
	if _, err := kind.Enqueue(testkit.Context(t), w.conn, image{"twice"}); err != nil {
		t.Fatal(err)
	}
	if dead := w.waitDead(t); dead.Header.Get(wire.HeaderCode) != task.CodeBadStep {
		t.Errorf("a step that comes twice is %v", dead.Header)
	}
}

func TestWorkflowStateFollowsFromItsTasks(t *testing.T) {
	t.Parallel()
	f := newFlows(t)
	h := f.start(t, defined(t, task.FlowConfig{}, task.Then(fetch.With("url"), shrink)))
	s, err := h.Status(testkit.Context(t))
	if err != nil || s.State != task.Running || s.Ended || states(s) != "page.fetch pending, page.shrink waiting" || s.Name != "pages" {
		t.Errorf("before anything runs it is %+v, %v", s, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Wait(ctx); fault.Code(err) != bus.CodeTimedOut {
		t.Errorf("a wait that ends early: %v", err)
	}
	if _, err := task.FindFlow(f.conn, "nosuch").Status(testkit.Context(t)); fault.Code(err) != task.CodeUnknown {
		t.Errorf("of an unknown one: %v", err)
	}
}
