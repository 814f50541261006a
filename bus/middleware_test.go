package bus_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// mark notes in order that it was passed on the way in and out.
func mark(log *[]string, name string) bus.Middleware {
	return func(next bus.HandleFunc) bus.HandleFunc {
		return func(ctx context.Context, w *bus.Work) error {
			*log = append(*log, name+" "+w.Kind)
			err := next(ctx, w)
			*log = append(*log, name+" out")
			return err
		}
	}
}

func TestMiddlewareIsTheSameForStagesWatchesAndCalls(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, wire.Grant{
		Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{route("raw", "raw")},
		Live: []string{"prices"}, Watches: []string{"prices"}, Calls: []string{"ask"}, Serves: []string{"ask"},
	})
	var m bus.Metrics
	var seen sync.Map // kind → Work
	look := func(next bus.HandleFunc) bus.HandleFunc {
		return func(ctx context.Context, w *bus.Work) error {
			seen.Store(w.Kind, *w)
			return next(ctx, w)
		}
	}
	use := []bus.Middleware{m.Use(), bus.Recover(), look}
	boom := func(n int) error {
		if n == 1 {
			panic("one")
		}
		return nil
	}
	s, err := bus.NewStage(c, bus.NewTopic[item]("raw"), func(_ context.Context, e bus.Event[item], _ *bus.Out) error {
		return boom(e.Value.N)
	}, bus.StageConfig{Use: use, Attempts: 2, Backoff: quick})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s)
	start(t, prices.Watch(c, func(_ context.Context, e bus.Event[item]) error { return boom(e.Value.N) }, bus.WatchConfig{Use: use}))
	ask := bus.NewCall[item, item]("ask")
	start(t, ask.Serve(c, func(_ context.Context, q item) (item, error) { return q, boom(q.N) }, bus.ServeConfig{Use: use}))
	fill(t, c, "raw", 2, 2)
	for n := range 2 {
		if _, err := prices.Publish(testkit.Context(t), c, item{N: n}); err != nil {
			t.Fatal(err)
		}
		if _, err := ask.Ask(testkit.Context(t), c, item{N: n}); (fault.Code(err) == bus.CodePanic) != (n == 1) {
			t.Errorf("ask %d: %v", n, err)
		}
	}
	settled(t, b, "raw", "svc")
	testkit.Eventually(t, func() bool { return m.Of("watch", "prices").Done == 2 }, "both live events are handled")
	for kind, want := range map[string]bus.Metric{
		"stage": {Kind: "stage", Name: "raw", Done: 3, Failed: 2}, "watch": {Kind: "watch", Name: "prices", Done: 2, Failed: 1},
		"call": {Kind: "call", Name: "ask", Done: 2, Failed: 1},
	} {
		got := m.Of(kind, want.Name)
		if got.Time = 0; got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
		w, ok := seen.Load(kind)
		if !ok || w.(bus.Work).Subject == "" || w.(bus.Work).Attempt < 1 || (w.(bus.Work).Event != wire.EventID{}) != (kind == "stage") {
			t.Errorf("%s: saw %+v", kind, w)
		}
	}
}

func TestTheFirstMiddlewareIsOutermost(t *testing.T) {
	t.Parallel()
	var log []string
	no := errors.New("no")
	err := bus.Wrap([]bus.Middleware{mark(&log, "a"), mark(&log, "b")}, func(context.Context) error {
		log = append(log, "handler")
		return no
	})(t.Context(), &bus.Work{Kind: "task"})
	if got := strings.Join(log, ", "); !errors.Is(err, no) || got != "a task, b task, handler, b out, a out" {
		t.Errorf("%v: %s", err, got)
	}
}

func TestLimitAndRateHoldWorkBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		work := bus.Wrap([]bus.Middleware{bus.Limit(3)}, func(context.Context) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
			now.Add(-1)
			return nil
		})
		began := time.Now()
		var all sync.WaitGroup
		for range 9 {
			all.Go(func() {
				if err := work(t.Context(), &bus.Work{}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if most.Load() != 3 || time.Since(began) != 3*time.Second {
			t.Errorf("%d at once, %v in all", most.Load(), time.Since(began))
		}
		began = time.Now()
		paced := bus.Wrap([]bus.Middleware{bus.Rate(10)}, func(context.Context) error { return nil })
		for range 11 {
			if err := paced(t.Context(), &bus.Work{}); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("eleven begin within %v, want 1s", took)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := paced(ended, &bus.Work{}); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestATraceCanBeReadInTheLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	use := []bus.Middleware{bus.LogTraces(slog.New(slog.NewTextHandler(&out, nil)))}
	do := bus.Wrap(use, func(context.Context) error { return errors.New("broken") })
	trace := wire.NewTrace()
	unsampled := trace
	unsampled.Sampled = false
	for _, ctx := range []context.Context{t.Context(), bus.WithTrace(t.Context(), unsampled)} {
		if err := do(ctx, &bus.Work{}); err == nil || out.Len() > 0 {
			t.Errorf("%v: logged %s", err, &out)
		}
	}
	_ = do(bus.WithTrace(t.Context(), trace), &bus.Work{Kind: "stage", Name: "raw", Event: wire.EventID{Stream: "raw", Seq: 7}})
	for _, want := range []string{"trace_id=" + trace.TraceID(), "span_id=" + trace.SpanID(), "kind=stage", "event=raw:7:0", "error=broken"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is missing in %s", want, &out)
		}
	}
}
