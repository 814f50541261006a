package task

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testtime"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// keeperTick is the grain of signs of life, of how many tasks are taken ahead, and of giving back.
	keeperTick = 100 * time.Millisecond

	// aheadFor is how much work is taken ahead of the handlers: many round trips to a broker on the same host.
	aheadFor = 25 * time.Millisecond

	// heldFor is how long a task may wait here for a handler before it is given back for another worker.
	heldFor = 500 * time.Millisecond
)

// outcome is what became of one task.
type outcome struct {
	err    error
	result []byte
}

// pool is a Worker without its types: it takes tasks, has do run them and tells the broker how they ended.
type pool struct {
	conn  *bus.Conn
	kind  string
	queue string
	task  Config
	cfg   WorkerConfig
	log   *slog.Logger
	quiet quiet
	ready chan struct{}
	do    func(ctx context.Context, leases []*lease, outcomes []outcome)

	lanes  []*lane  // by priority
	leases []*lease // Batch for each handler
	turn   atomic.Uint64
	busy   atomic.Int64  // tasks in hand
	done   atomic.Uint64 // tasks that have ended
	ahead  atomic.Int64  // how many tasks to take beside those in hand

	clock moment        // last turn of the keeper
	stale atomic.Bool   // the process was stopped for so long that what waits here may be others'
	link  atomic.Uint64 // number of the connection
	first uint64        // that of the one that Run began with
	short time.Duration // longest delay that is waited for in the consumer
	since moment        // when it was made, or noticed
	notes notes

	pace  string      // subject of words to the dispatcher
	paced atomic.Bool // the queue is limited: what has not been let out is set aside
}

func newPool(c *bus.Conn, kind string, task Config, cfg WorkerConfig, do func(context.Context, []*lease, []outcome)) *pool {
	w := &pool{
		conn: c, kind: kind, queue: c.Grant().QueueOf(kind).Name, task: task, cfg: cfg,
		log: cfg.Logger.With("kind", kind), ready: make(chan struct{}), do: do, short: shortDelay,
	}
	if testtime.Moved(c) {
		w.short = 0 // what waits in the consumer cannot be moved
	}
	w.pace = wire.PaceSubject(w.queue)
	for p := High; p <= Low; p++ {
		w.lanes = append(w.lanes, newLane(c, w.queue, kind, p))
	}
	for range cfg.Concurrency * cfg.Batch {
		w.leases = append(w.leases, &lease{conn: c, alone: cfg.Batch == 1})
	}
	return w
}

// Ready is closed when the broker's queue of the kind has been found.
func (w *pool) Ready() <-chan struct{} { return w.ready }

// run is Worker.Run in the process that does the tasks.
func (w *pool) run(ctx context.Context) error {
	if g := w.conn.Grant(); !slices.Contains(g.Handles, w.kind) {
		return &fault.Error{
			Code: CodeNotHandled, What: fmt.Sprintf("service %q may not handle tasks of kind %q", g.Service, w.kind),
			Where: "task " + w.kind, Fix: fmt.Sprintf("add %s to handles of service %s in hozo.yaml", w.kind, g.Service),
		}
	}
	work, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	if !w.await(ctx) {
		return nil // stopped before the queue was there
	}
	notes, err := w.conn.NATS().Subscribe(wire.NoteSubject(w.kind), func(m *nats.Msg) {
		w.notes.add(string(m.Data)) // first: what is begun from here on is looked at before
		for _, l := range w.leases {
			l.end(string(m.Data), errCancelled)
		}
	})
	if err != nil {
		return fmt.Errorf("listen for cancellations of %s: %w", w.kind, err)
	}
	defer func() { _ = notes.Unsubscribe() }() // it fails only when the connection is closed
	close(w.ready)

	stopped := make(chan struct{})
	var keeper, handlers sync.WaitGroup
	w.clock.set(time.Now())
	w.since.set(time.Now())
	w.first = w.conn.NATS().Stats().Reconnects
	w.link.Store(w.first)
	keeper.Go(func() { w.keep(ctx, stopped) })
	keeper.Go(func() { w.observe(work, stopped) })
	for n := range w.cfg.Concurrency {
		handlers.Go(func() { w.loop(ctx, work, w.leases[n*w.cfg.Batch:(n+1)*w.cfg.Batch]) })
	}
	<-ctx.Done()
	grace := time.AfterFunc(w.cfg.DrainGrace, func() { abandon(errStopped) })
	defer grace.Stop()
	for _, l := range w.lanes {
		l.close(w.outdated())
	}
	handlers.Wait()
	close(stopped)
	keeper.Wait()
	return nil
}

// await waits for the kind's consumers; false when ctx ended first.
func (w *pool) await(ctx context.Context) bool {
	for waiting := false; ; waiting = true {
		err := w.lookPaced(ctx)
		if err == nil {
			return true
		}
		if !waiting && ctx.Err() == nil {
			w.log.InfoContext(ctx, "waiting for the queue", "error", err)
		}
		if !sleep(ctx, retryFind) {
			return false
		}
	}
}

// lookPaced finds out whether the queue is limited.
func (w *pool) lookPaced(ctx context.Context) error {
	consumer, err := w.conn.JetStream().Consumer(ctx, wire.StreamName(wire.QueueStream(w.queue)), wire.TaskDurable(w.kind, wire.TaskPriority1))
	if err == nil {
		w.paced.Store(consumer.CachedInfo().Config.Metadata[wire.MetaPaced] != "")
	}
	return err
}

// room is how many tasks may be on their way.
func (w *pool) room() int64 {
	return int64(w.cfg.Concurrency*w.cfg.Batch) - w.busy.Load() + w.ahead.Load()
}

// fill asks for tasks where some are missing.
func (w *pool) fill() {
	room := w.room()
	for _, l := range w.lanes {
		l.fill(room)
	}
}

// loop does one task, or batch, after the other until ctx ends.
func (w *pool) loop(ctx, work context.Context, leases []*lease) {
	outcomes := make([]outcome, len(leases))
	for {
		msg := w.next(ctx.Done(), nil)
		if msg == nil {
			return
		}
		n := 0
		run := newCallContext(work, w.task.Timeout)
		n = w.begin(work, msg, leases, n, run.cancel)
		if len(leases) > 1 && n > 0 {
			n = w.gather(ctx, work, leases, n, run.cancel)
		}
		if n > 0 {
			w.attempt(work, run, leases[:n], outcomes[:n])
		}
		run.cancel(nil)
	}
}

// gather adds tasks to a batch until it is full, or Linger is over.
func (w *pool) gather(ctx, work context.Context, leases []*lease, n int, cancel context.CancelCauseFunc) int {
	linger := time.NewTimer(w.cfg.Linger)
	defer linger.Stop()
	for n < len(leases) {
		msg := w.next(ctx.Done(), linger.C)
		if msg == nil {
			break
		}
		n = w.begin(work, msg, leases, n, cancel)
	}
	return n
}

// next returns the next task, or nil when stop or over comes first. High priorities are favoured, not exclusive.
func (w *pool) next(stop <-chan struct{}, over <-chan time.Time) *nats.Msg {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if m := w.waiting(); m != nil {
			w.fill()
			return m
		}
		w.fill()
		var lane *lane
		var m *nats.Msg
		select {
		case m = <-w.lanes[0].msgs:
			lane = w.lanes[0]
		case m = <-w.lanes[1].msgs:
			lane = w.lanes[1]
		case m = <-w.lanes[2].msgs:
			lane = w.lanes[2]
		case <-over:
			return nil
		case <-stop:
			return nil
		}
		if lane.isTask(m) {
			return m
		}
	}
}

// order says which lane is asked first, of ten turns.
var order = [10]int{0, 1, 0, 0, 1, 0, 2, 0, 1, 0}

// waiting returns a task that is here already, or nil.
func (w *pool) waiting() *nats.Msg {
	first := order[w.turn.Add(1)%uint64(len(order))]
	for i := range w.lanes {
		l := w.lanes[(first+i)%len(w.lanes)]
		for {
			select {
			case m := <-l.msgs:
				if l.isTask(m) {
					return m
				}
				continue
			default:
			}
			break
		}
	}
	return nil
}
