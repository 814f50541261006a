package task_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// traced is one event on a long way.
type traced struct{ N int }

// One trace goes from outside through two stages, a try that fails, a time aside, a call, a live event and a task into
// two dead letters. Each hop has a span of its own, and the event beside it has no trace at all.
func TestOneTraceSpansEveryHop(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := b.Grant(t, wire.Grant{
		Service: "flow", Consumes: []wire.Source{{Stream: "raw"}, {Stream: "mid"}},
		Publish: []wire.Route{{Subject: "raw", Stream: "raw"}, {Subject: "mid", Stream: "mid"}},
		Calls:   []string{"flow.ask"}, Serves: []string{"flow.ask"}, Live: []string{"flow.seen"}, Watches: []string{"flow.seen"},
		Enqueues: []string{"flow.task"}, Handles: []string{"flow.task"},
	})
	conn, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: g, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	origin := wire.NewTrace()
	origin.State = "vendor=1"
	spans := make(chan string, 64)
	hop := func(ctx context.Context, what string, n int) {
		trace, ok := bus.TraceOf(ctx)
		switch {
		case n != 1 && ok:
			t.Errorf("%s: event %d has the trace %s", what, n, trace)
		case n == 1 && (!ok || trace.TraceID() != origin.TraceID() || !trace.Sampled || trace.State != origin.State):
			t.Errorf("%s: the trace is %s", what, trace)
		case n == 1:
			spans <- trace.SpanID()
		}
	}
	raw, mid, seen := bus.NewTopic[traced]("raw"), bus.NewTopic[traced]("mid"), bus.NewTopic[traced]("flow.seen")
	ask := bus.NewCall[traced, traced]("flow.ask")
	kind := task.NewKind[traced]("flow.task", task.Config{Attempts: 2, Backoff: time.Millisecond})
	watched := make(chan struct{})
	runAll(t, ask.Serve(conn, func(ctx context.Context, q traced) (traced, error) { hop(ctx, "call", q.N); return q, nil }, bus.ServeConfig{}))
	runAll(t, seen.Watch(conn, func(ctx context.Context, e bus.Event[traced]) error {
		if hop(ctx, "watch", e.Value.N); e.Value.N == 1 {
			close(watched)
		}
		return nil
	}, bus.WatchConfig{}))
	first, err := bus.NewStage(conn, raw, func(ctx context.Context, e bus.Event[traced], out *bus.Out) error {
		hop(ctx, "first stage", e.Value.N)
		switch {
		case e.Value.N == 1 && e.Returns == 0 && e.Attempt == 1:
			return errors.New("once more")
		case e.Value.N == 1 && e.Returns == 0:
			return bus.RetryLater(time.Millisecond)
		}
		return mid.Send(out, e.Value)
	}, bus.StageConfig{Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	second, err := bus.NewStage(conn, mid, func(ctx context.Context, e bus.Event[traced], out *bus.Out) error {
		hop(ctx, "second stage", e.Value.N)
		if _, err := ask.Ask(ctx, conn, e.Value); err != nil {
			return err
		}
		if _, err := seen.Publish(ctx, conn, e.Value); err != nil {
			return err
		}
		if _, err := kind.Enqueue(ctx, conn, e.Value); err != nil {
			return err
		}
		if e.Value.N == 1 {
			return bus.Reject("flow/no", errors.New("no"))
		}
		return nil
	}, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	runAll(t, first)
	runAll(t, second)
	runAll(t, task.NewWorker(conn, kind, func(ctx context.Context, job task.Task[traced]) error {
		if hop(ctx, "task", job.Args.N); job.Args.N == 1 {
			return errors.New("never")
		}
		return nil
	}, task.WorkerConfig{}))
	for n := range 3 {
		ctx := testkit.Context(t)
		if n == 1 {
			ctx = bus.WithTrace(ctx, origin)
		}
		if _, err := raw.Publish(ctx, conn, traced{n}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Wait(t, watched)
	testkit.Eventually(t, func() bool { return conn.Counters().Parked.Load() == 2 }, "the event and its task are dead letters")
	dead, err := b.JS.Stream(testkit.Context(t), wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range []string{"hozo.dlq.flow.mid.>", "hozo.dlq.flow.hozo_tasks_flow_task.>"} {
		letter, err := dead.GetLastMsgForSubject(testkit.Context(t), filter)
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		trace, ok := wire.TraceOf(letter.Header)
		if !ok || trace.TraceID() != origin.TraceID() || trace.State != origin.State {
			t.Errorf("%s: the dead letter has %v", filter, letter.Header)
		}
	}
	close(spans)
	distinct := map[string]bool{}
	for span := range spans {
		distinct[span] = true
	}
	// first stage twice and once back, second stage, call, watch, task twice
	if len(distinct) != 8 || distinct[origin.SpanID()] {
		t.Errorf("%d hops have spans of their own", len(distinct))
	}
}

type runnable interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// runAll runs r until the end of t.
func runAll(t *testing.T, r runnable) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }() // awaited below
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	testkit.Wait(t, r.Ready())
}
