package bus

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Work is one call of a handler, as middleware sees it.
type Work struct {
	Kind    string       // stage, collect, watch, call or task
	Name    string       // the topic, the call's subject or the task's kind
	Subject string       // of the event or request
	Event   wire.EventID // of a stored event; else zero
	Attempt int          // from 1
}

// HandleFunc does a piece of work.
type HandleFunc func(ctx context.Context, w *Work) error

// Middleware wraps what handles: it may look at the work, change the context, wait, and see or replace the error. The
// same one serves stages, watches, calls and tasks (the Use of their configs); the first of a list is outermost. A
// Middleware is used by many goroutines at once. The Work is valid until it returns.
type Middleware func(next HandleFunc) HandleFunc

// Wrap returns run with use around it.
func Wrap(use []Middleware, run func(ctx context.Context) error) HandleFunc {
	handle := func(ctx context.Context, _ *Work) error { return run(ctx) }
	for _, m := range slices.Backward(use) {
		handle = m(handle)
	}
	return handle
}

// Recover turns a panic further in into the fault stage/panic, with the stack as its cause. Handlers are caught in any
// case; with Recover the middleware around it sees the fault.
func Recover() Middleware {
	return func(next HandleFunc) HandleFunc {
		return func(ctx context.Context, w *Work) (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = &fault.Error{
						Code: CodePanic, What: fmt.Sprintf("the handler panicked: %v", p), Fix: "see the stack",
						Err: fmt.Errorf("%s", debug.Stack()),
					}
				}
			}()
			return next(ctx, w)
		}
	}
}

// Limit lets so many handlers run at once, over everything that shares the one Middleware; others wait their turn, as
// long as their context lasts.
func Limit(n int) Middleware {
	slots := make(chan struct{}, max(n, 1)) // one for each that may run
	return func(next HandleFunc) HandleFunc {
		return func(ctx context.Context, w *Work) error {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			defer func() { <-slots }()
			return next(ctx, w)
		}
	}
}

// Rate lets so many handlers begin in a second, evenly spread; others wait their turn. What has not begun in some while
// is not made up for.
func Rate(perSecond float64) Middleware {
	var mu sync.Mutex
	var next time.Time // when the next one may begin
	gap := time.Duration(float64(time.Second) / max(perSecond, 1e-9))
	return func(then HandleFunc) HandleFunc {
		return func(ctx context.Context, w *Work) error {
			mu.Lock()
			now := time.Now()
			if next.Before(now) {
				next = now
			}
			wait := next.Sub(now)
			next = next.Add(gap)
			mu.Unlock()
			if wait > 0 && !sleep(ctx, wait) {
				return context.Cause(ctx)
			}
			return then(ctx, w)
		}
	}
}

// Metrics counts work by kind and name. The zero Metrics is ready.
type Metrics struct {
	mu  sync.Mutex
	all map[metricKey]Metric
}

type metricKey struct{ kind, name string }

// Metric is what was done under one kind and name.
type Metric struct {
	Kind, Name string
	Done       uint64        // calls of the handler
	Failed     uint64        // of them, how many returned an error
	Time       time.Duration // of all of them
}

// Use returns the middleware that counts.
func (m *Metrics) Use() Middleware {
	return func(next HandleFunc) HandleFunc {
		return func(ctx context.Context, w *Work) error {
			began := time.Now()
			err := next(ctx, w)
			took := time.Since(began)
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.all == nil {
				m.all = make(map[metricKey]Metric)
			}
			key := metricKey{w.Kind, w.Name}
			one := m.all[key]
			one.Kind, one.Name = w.Kind, w.Name
			one.Done++
			one.Time += took
			if err != nil {
				one.Failed++
			}
			m.all[key] = one
			return err
		}
	}
}

// Of returns what was counted under a kind and name so far.
func (m *Metrics) Of(kind, name string) Metric {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[metricKey{kind, name}]
}

// LogTraces writes one line for each piece of work that stands in a sampled trace: trace_id, span_id, what it was, how
// long it took and how it failed. hozo logs --grep TRACE_ID then shows a trace's way through all services.
func LogTraces(log *slog.Logger) Middleware {
	return func(next HandleFunc) HandleFunc {
		return func(ctx context.Context, w *Work) error {
			t, ok := TraceOf(ctx)
			if !ok || !t.Sampled {
				return next(ctx, w)
			}
			began := time.Now()
			err := next(ctx, w)
			attrs := []any{
				"trace_id", t.TraceID(), "span_id", t.SpanID(), "kind", w.Kind, "name", w.Name, "subject", w.Subject,
				"attempt", w.Attempt, "duration", time.Since(began),
			}
			if w.Event != (wire.EventID{}) {
				attrs = append(attrs, "event", w.Event.String())
			}
			if err != nil {
				attrs = append(attrs, "error", err)
			}
			log.InfoContext(ctx, "traced", attrs...)
			return err
		}
	}
}
