package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
)

// Defaults and bounds of WorkerConfig.
const (
	DefaultConcurrency = 4
	DefaultDrainGrace  = 8 * time.Second

	maxConcurrency = 4096 // tasks in hand at once, batches included: half of what the broker hands out of one kind
)

// WorkerConfig tunes a Worker. The zero value is ready for production.
type WorkerConfig struct {
	Concurrency int           // handlers at once; default 4
	DrainGrace  time.Duration // how long running handlers may go on after the stop; default 8s
	Logger      *slog.Logger  // nil discards

	Use []bus.Middleware // around the handler, the first outermost; around that of batches once a batch

	// Batch is the most tasks that a handler of batches gets at once, 1 to 4096; default 100. Linger is how long it
	// waits for that many after the first; default 50ms. Others ignore both.
	Batch  int
	Linger time.Duration

	Isolate *Isolation // handlers run in child processes; nil: in this one
}

func (c WorkerConfig) withDefaults() WorkerConfig {
	c.Concurrency = min(cmp.Or(max(c.Concurrency, 0), DefaultConcurrency), maxConcurrency)
	c.DrainGrace = cmp.Or(max(c.DrainGrace, 0), DefaultDrainGrace)
	c.Batch = min(cmp.Or(max(c.Batch, 0), 100), maxConcurrency/c.Concurrency)
	c.Linger = cmp.Or(max(c.Linger, 0), 50*time.Millisecond)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Worker does the tasks of one kind. Every instance of the service has its own, and each task goes to whichever has a
// handler free. It takes more tasks than it has handlers only while they are done so fast that the way to the broker
// would be what takes the time.
type Worker[T any] struct{ *pool }

var _ lifecycle.Runner = (*Worker[int])(nil)

// NewWorker makes a Worker that does tasks of kind k with fn, which is called from several goroutines at once.
func NewWorker[T any](c *bus.Conn, k Kind[T], fn func(ctx context.Context, t Task[T]) error, cfg WorkerConfig) *Worker[T] {
	return newWorker(c, k, cfg, func(ctx context.Context, t Task[T]) ([]byte, error) { return nil, fn(ctx, t) })
}

func newWorker[T any](c *bus.Conn, k Kind[T], cfg WorkerConfig, fn func(ctx context.Context, t Task[T]) ([]byte, error)) *Worker[T] {
	cfg = cfg.withDefaults()
	cfg.Batch, cfg.Linger = 1, 0
	return &Worker[T]{newPool(c, k.name, k.cfg, cfg, func(ctx context.Context, leases []*lease, outcomes []outcome) {
		t, err := k.task(leases[0])
		if err == nil && len(cfg.Use) == 0 {
			outcomes[0].result, err = fn(bus.Continue(ctx, leases[0].d.msg.Header), t)
		} else if err == nil {
			err = bus.Wrap(cfg.Use, func(ctx context.Context) (err error) {
				outcomes[0].result, err = fn(ctx, t)
				return err
			})(bus.Continue(ctx, leases[0].d.msg.Header), workOf(leases[0], t.Kind, t.Attempt))
		}
		outcomes[0].err = err
	})}
}

// NewResultWorker makes a Worker whose handler returns a result.
func NewResultWorker[A, R any](c *bus.Conn, k ResultKind[A, R], fn func(ctx context.Context, t Task[A]) (R, error), cfg WorkerConfig) *Worker[A] {
	return newWorker(c, k.Kind, cfg, func(ctx context.Context, t Task[A]) ([]byte, error) {
		result, err := fn(ctx, t)
		if err != nil {
			return nil, err
		}
		data, err := marshal(result)
		if err != nil {
			return nil, Reject(fmt.Errorf("encode the result of task %s: %w", k.name, err))
		}
		if limit := int(c.NATS().MaxPayload()) - headroomBytes; len(data) > limit {
			return nil, Reject(&fault.Error{
				Code: bus.CodeTooLarge, What: fmt.Sprintf("a result of %d bytes is over the limit of %d", len(data), limit),
				Where: "task " + k.name, Fix: "store the data elsewhere and return its address",
			})
		}
		return data, nil
	})
}

// NewBatchWorker makes a Worker that hands fn up to Batch tasks at once. fn returns nil when all are done, a BatchError
// with an error or nil for each task, or another error that counts for each. Timeout of the kind is that of a batch.
func NewBatchWorker[T any](c *bus.Conn, k Kind[T], fn func(ctx context.Context, ts []Task[T]) error, cfg WorkerConfig) *Worker[T] {
	return &Worker[T]{newPool(c, k.name, k.cfg, cfg.withDefaults(), func(ctx context.Context, leases []*lease, outcomes []outcome) {
		tasks, at := make([]Task[T], 0, len(leases)), make([]int, 0, len(leases))
		for i, l := range leases {
			t, err := k.task(l)
			if err != nil {
				outcomes[i].err = err // alone: its neighbours are good
				continue
			}
			tasks, at = append(tasks, t), append(at, i)
		}
		if len(tasks) == 0 {
			return
		}
		for i := range at {
			outcomes[at[i]].err = errUnfinished // when fn panics
		}
		err := bus.Wrap(cfg.Use, func(ctx context.Context) error { return fn(ctx, tasks) })(ctx, workOf(leases[at[0]], k.name, tasks[0].Attempt))
		each, apart := errors.AsType[BatchError](err)
		for i, to := range at {
			switch {
			case !apart:
				outcomes[to].err = err
			case i < len(each):
				outcomes[to].err = each[i]
			default:
				outcomes[to].err = errUnfinished
			}
		}
	})}
}

// workOf is what middleware is told.
func workOf(l *lease, kind string, attempt int) *bus.Work {
	return &bus.Work{Kind: "task", Name: kind, Subject: l.d.subject(), Attempt: attempt}
}

// errUnfinished is the outcome of a task that its handler has said nothing of.
var errUnfinished = errors.New("the handler has not said what became of the task")

// BatchError is the error of a handler of batches that has one, or nil, for each of its tasks.
type BatchError []error

// Error joins the errors.
func (e BatchError) Error() string { return fmt.Sprint(errors.Join(e...)) }

// Run does tasks until ctx ends. Then it takes no more and waits for the running handlers; after DrainGrace their
// contexts end, and what they have not done is given back for another worker to start at once. Run returns when every
// handler has returned. It returns the fault task/not-handled when the kind is not declared under handles.
func (w *Worker[T]) Run(ctx context.Context) error {
	if w.cfg.Isolate == nil {
		return w.pool.run(ctx)
	}
	if IsolatedKind() == w.kind {
		return w.serveParent(ctx)
	}
	isolated := newChildren(w.kind, *w.cfg.Isolate, w.task.Crashes, w.log)
	defer isolated.stop()
	w.do = isolated.do
	return w.pool.run(ctx)
}

// Concurrency is how many handlers the Worker runs at once.
func (w *Worker[T]) Concurrency() int { return w.cfg.Concurrency }

// task makes what a handler gets.
func (k Kind[T]) task(l *lease) (Task[T], error) {
	d := &l.d
	args, err := k.decode(d.data)
	return Task[T]{
		ID: d.id, Kind: k.name, Key: d.key, Args: args, Attempt: l.failed() + 1, EnqueuedAt: d.stored, lease: l,
	}, err
}
