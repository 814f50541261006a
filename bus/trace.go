package bus

import (
	"context"
	"strings"

	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

type traceKey struct{}

// WithTrace returns a context that stands in a trace: what is published, asked and enqueued with it belongs to t.
func WithTrace(ctx context.Context, t wire.Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceOf returns the trace that ctx stands in. Handlers of stages, watches, calls, tasks and HTTP requests have one
// when what they handle does.
func TraceOf(ctx context.Context) (wire.Trace, bool) {
	t, ok := ctx.Value(traceKey{}).(wire.Trace)
	return t, ok
}

// Continue returns ctx in the trace that the headers of a bare message name, with a span of its own, or ctx when they
// name none. The names may be written as in HTTP.
func Continue(ctx context.Context, h map[string][]string) context.Context {
	if len(h) == 0 {
		return ctx
	}
	t, ok := wire.TraceOf(h)
	if !ok {
		parent := h["Traceparent"]
		if len(parent) != 1 {
			return ctx
		}
		if t, ok = wire.ParseTrace(parent[0], strings.Join(h["Tracestate"], ",")); !ok {
			return ctx
		}
	}
	return WithTrace(ctx, t.Child())
}

// PutTrace writes the trace of ctx into the headers of a message with so many events, when it is sampled: those of a
// frame, or with events being 0 those of a bare message.
func PutTrace(ctx context.Context, h nats.Header, events int) {
	t, ok := TraceOf(ctx)
	switch {
	case !ok || !t.Sampled:
	case events == 0:
		t.Put(h)
	default:
		h[wire.HeaderTraces] = []string{wire.TraceRun{First: 0, Last: events - 1, Trace: t}.String()}
	}
}

// traces are the sampled traces of the events of one frame, by their places. Most frames have none.
type traces []wire.TraceRun

// add notes the trace of the events from first to last. Beyond the bound it is left out.
func (t *traces) add(first, last int, trace wire.Trace) {
	if len(*t) < wire.MaxFrameTraces {
		*t = append(*t, wire.TraceRun{First: first, Last: last, Trace: trace})
	}
}

// truncate forgets the traces of events from n on.
func (t *traces) truncate(n int) {
	for len(*t) > 0 && (*t)[len(*t)-1].First >= n {
		*t = (*t)[:len(*t)-1]
	}
}

// of returns the trace of event i.
func (t traces) of(i int) (wire.Trace, bool) {
	for _, run := range t {
		if run.First <= i && i <= run.Last {
			return run.Trace, true
		}
	}
	return wire.Trace{}, false
}

// put writes the traces of the events from first to last-1 into the headers of a frame of just these.
func (t traces) put(h nats.Header, first, last int) {
	for _, run := range t {
		if run.First < last && run.Last >= first {
			run.First, run.Last = max(run.First, first)-first, min(run.Last, last-1)-first
			h[wire.HeaderTraces] = append(h[wire.HeaderTraces], run.String())
		}
	}
}

// tracesOf reads the traces of a frame, or of a bare message.
func tracesOf(h nats.Header, events int) traces {
	if len(h) == 0 {
		return nil
	}
	if t, ok := wire.TraceOf(h); ok {
		return traces{{First: 0, Last: events - 1, Trace: t}}
	}
	var all traces
	for _, value := range h[wire.HeaderTraces] {
		if run, ok := wire.ParseTraceRun(value); ok {
			all.add(run.First, run.Last, run.Trace)
		}
	}
	return all
}
