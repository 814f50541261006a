package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// DefaultConcurrency is small because tasks are slow and often heavy; a service scales by instances.
	DefaultConcurrency = 4
	// DefaultDrainGrace leaves two of the ten seconds of the manifest's default stop grace to the rest of the process.
	DefaultDrainGrace = 8 * time.Second

	pullExpiry    = 30 * time.Second       // how long the broker keeps a request for a task that is not there
	pullHeartbeat = 5 * time.Second        // how often it says that it still knows of the request; two missing renew it
	retryPull     = 200 * time.Millisecond // before asking again for a consumer that is not there
)

// errStopped is the cause of the context of handlers that outlive DrainGrace.
var errStopped = errors.New("the worker is stopping")

// WorkerConfig tunes a Worker. The zero value is ready for production.
type WorkerConfig struct {
	Concurrency int           // tasks at once; default 4
	DrainGrace  time.Duration // how long running handlers may go on after the stop; default 8s
	Logger      *slog.Logger  // nil discards

	Use []bus.Middleware // around the handler, the first outermost
}

func (c WorkerConfig) withDefaults() WorkerConfig {
	c.Concurrency = cmp.Or(max(c.Concurrency, 0), DefaultConcurrency)
	c.DrainGrace = cmp.Or(max(c.DrainGrace, 0), DefaultDrainGrace)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Worker does the tasks of one kind. Every instance of the service has its own, and each task goes to whichever has a
// handler free: a Worker never holds a task that it is not working on.
type Worker[T any] struct {
	conn  *bus.Conn
	kind  Kind[T]
	fn    HandlerFunc[T]
	cfg   WorkerConfig
	log   *slog.Logger
	quiet quiet
	ready chan struct{}
}

var _ lifecycle.Runner = (*Worker[int])(nil)

// NewWorker makes a Worker that does tasks of kind k with fn, which is called from several goroutines at once.
func NewWorker[T any](c *bus.Conn, k Kind[T], fn func(ctx context.Context, t Task[T]) error, cfg WorkerConfig) *Worker[T] {
	cfg = cfg.withDefaults()
	return &Worker[T]{
		conn: c, kind: k, fn: fn, cfg: cfg,
		log: cfg.Logger.With("kind", k.name), ready: make(chan struct{}),
	}
}

// Concurrency is how many tasks the Worker does at once.
func (w *Worker[T]) Concurrency() int { return w.cfg.Concurrency }

// Ready is closed when the broker's queue of the kind has been found.
func (w *Worker[T]) Ready() <-chan struct{} { return w.ready }

// Run does tasks until ctx ends. Then it takes no more and waits for the running handlers; after DrainGrace their
// contexts end, and what they have not done is given back for another worker to start at once. Run returns when every
// handler has returned. It returns the fault task/not-handled when the kind is not declared under handles.
func (w *Worker[T]) Run(ctx context.Context) error {
	if g := w.conn.Grant(); !slices.Contains(g.Handles, w.kind.name) {
		return &fault.Error{
			Code: CodeNotHandled, What: fmt.Sprintf("service %q may not handle tasks of kind %q", g.Service, w.kind.name),
			Where: wire.TaskSubject(w.kind.name), Fix: fmt.Sprintf("add %s to handles of service %s in hozo.yaml", w.kind.name, g.Service),
		}
	}
	work, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	consumer := w.consumer(ctx)
	if consumer == nil {
		return nil // stopped before it was there
	}
	close(w.ready)
	var workers sync.WaitGroup
	for range w.cfg.Concurrency {
		workers.Go(func() { w.loop(ctx, work, consumer) })
	}
	<-ctx.Done()
	grace := time.AfterFunc(w.cfg.DrainGrace, func() { abandon(errStopped) })
	defer grace.Stop()
	workers.Wait()
	return nil
}

// consumer waits for the kind's consumer; nil when ctx ended first.
func (w *Worker[T]) consumer(ctx context.Context) jetstream.Consumer {
	stream := wire.StreamName(wire.TaskStream)
	for waiting := false; ; waiting = true {
		consumer, err := w.conn.JetStream().Consumer(ctx, stream, w.kind.durable())
		if err == nil {
			return consumer
		}
		if !waiting && ctx.Err() == nil {
			w.log.InfoContext(ctx, "waiting for the queue", "error", err)
		}
		if !sleep(ctx, retryPull) {
			return nil
		}
	}
}

// loop does one task after the other until ctx ends.
func (w *Worker[T]) loop(ctx, work context.Context, consumer jetstream.Consumer) {
	for ctx.Err() == nil {
		// An iterator of one message asks for it only when Next is called: a task is taken by who is free for it.
		tasks, err := consumer.Messages(
			jetstream.PullMaxMessages(1), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat),
			jetstream.WithMessagesErrOnMissingHeartbeat(false))
		if err == nil {
			err = w.doAll(ctx, work, tasks)
		}
		if err != nil && ctx.Err() == nil {
			if now, more := w.quiet.pass(); now {
				w.log.WarnContext(ctx, "the flow of tasks was interrupted", "error", err, "more_not_logged", more)
			}
			sleep(ctx, retryPull)
		}
	}
}

// doAll does the tasks of one iterator until ctx ends or the iterator breaks.
func (w *Worker[T]) doAll(ctx, work context.Context, tasks jetstream.MessagesContext) error {
	ended := context.AfterFunc(ctx, func() {
		if w.conn.Connected() {
			tasks.Drain() // a task on its way here is still taken, below, and given back
		} else {
			tasks.Stop()
		}
	})
	defer ended()
	defer tasks.Stop()
	for ctx.Err() == nil { // without Next nothing is on its way here
		msg, err := tasks.Next()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			_ = msg.Nak() // when it is lost, the broker waits five seconds for us and gives the task to another
			continue
		}
		w.attempt(work, msg)
	}
	return nil
}

// sleep waits for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
