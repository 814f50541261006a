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

	lanes  [4]*lane // see laneOf
	leases []*lease // Batch for each handler
	frames frames
	opened chan struct{} // tasks of a frame wait for whoever is idle
	turn   atomic.Uint64
	busy   atomic.Int64  // tasks in hand
	done   atomic.Uint64 // tasks that have ended
	ahead  atomic.Int64  // how many tasks to take beside those in hand

	perFrame atomic.Int64 // tasks that a frame holds, about

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
		log: cfg.Logger.With("kind", kind), ready: make(chan struct{}), do: do, short: shortDelay, opened: make(chan struct{}, cfg.Concurrency),
	}
	if testtime.Moved(c) {
		w.short = 0 // what waits in the consumer cannot be moved
	}
	w.pace = wire.PaceSubject(w.queue)
	for at, durable := range [...]string{
		laneHigh: wire.TaskDurable(kind, int(High)), laneNormal: wire.TaskDurable(kind, int(Normal)),
		laneFrames: wire.FrameDurable(kind), laneLow: wire.TaskDurable(kind, int(Low)),
	} {
		w.lanes[at] = newLane(c, w.queue, durable)
	}
	w.perFrame.Store(frameGuess)
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
	keeper.Go(func() { w.spread(work, stopped) })
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
	if !w.outdated() {
		w.frames.each(func(f *frame) { w.spill(work, f) })
	}
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
	consumer, err := w.conn.JetStream().Consumer(ctx, wire.StreamName(wire.QueueStream(w.queue)), wire.FrameDurable(w.kind)) // it is made last
	if err == nil {
		w.paced.Store(consumer.CachedInfo().Config.Metadata[wire.MetaPaced] != "")
	}
	return err
}

// fill asks for tasks where some are missing.
func (w *pool) fill() {
	free, ahead := int64(w.cfg.Concurrency*w.cfg.Batch)-w.busy.Load(), w.ahead.Load()
	for at, l := range w.lanes {
		if at != laneFrames {
			l.fill(free + min(ahead, mostAhead))
		}
	}
	if missing := free + ahead - w.frames.waiting.Load(); missing > 0 {
		per := w.perFrame.Load()
		w.lanes[laneFrames].fill(min((missing+per-1)/per, mostFrames))
	}
}

// item is what a handler takes: a message, or n tasks of a frame.
type item struct {
	msg      *nats.Msg
	frame    *frame
	first, n int
}

// loop does one task, or batch, after the other until ctx ends.
func (w *pool) loop(ctx, work context.Context, leases []*lease) {
	outcomes := make([]outcome, len(leases))
	for {
		it, ok := w.next(ctx.Done(), nil, work, len(leases))
		if !ok {
			return
		}
		run := newCallContext(work, w.task.Timeout)
		n := w.begin(work, it, leases, 0, run.cancel)
		if n > 0 && n < len(leases) {
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
		it, ok := w.next(ctx.Done(), linger.C, work, len(leases)-n)
		if !ok {
			break
		}
		n = w.begin(work, it, leases, n, cancel)
	}
	return n
}

// next returns the next task, or up to most of them from a frame; false when stop or over comes first. High priorities are
// favoured, not exclusive.
func (w *pool) next(stop <-chan struct{}, over <-chan time.Time, work context.Context, most int) (item, bool) {
	for {
		select {
		case <-stop:
			return item{}, false
		default:
		}
		it, ok := w.waiting(work, most)
		w.fill()
		if ok {
			return it, true
		}
		var m *nats.Msg
		at := laneHigh
		select {
		case m = <-w.lanes[laneHigh].msgs:
		case m = <-w.lanes[laneNormal].msgs:
			at = laneNormal
		case m = <-w.lanes[laneFrames].msgs:
			at = laneFrames
		case m = <-w.lanes[laneLow].msgs:
			at = laneLow
		case <-w.opened:
			continue
		case <-over:
			return item{}, false
		case <-stop:
			return item{}, false
		}
		switch {
		case !w.lanes[at].isTask(m):
		case at == laneFrames:
			w.open(work, m)
		default:
			return item{msg: m}, true
		}
	}
}

// Places of the lanes. Tasks in frames are of normal priority.
const (
	laneHigh = iota
	laneNormal
	laneFrames
	laneLow
)

// turns says which lane is asked first, of twenty turns, and which ones then.
var (
	turns = [20]int{0, 1, 0, 0, 2, 0, 3, 0, 1, 0, 0, 2, 0, 0, 1, 0, 3, 0, 2, 0}
	then  = [4][4]int{{0, 1, 2, 3}, {1, 2, 3, 0}, {2, 1, 3, 0}, {3, 0, 1, 2}}
)

// waiting returns what is here already.
func (w *pool) waiting(work context.Context, most int) (item, bool) {
	for _, at := range then[turns[w.turn.Add(1)%uint64(len(turns))]] {
		if at == laneFrames {
			if it, ok := w.framed(work, most); ok {
				return it, true
			}
		} else if m := w.lanes[at].take(); m != nil {
			return item{msg: m}, true
		}
	}
	return item{}, false
}

// framed returns tasks of a frame that is here.
func (w *pool) framed(work context.Context, most int) (item, bool) {
	for !w.outdated() {
		if f, first, n := w.frames.begin(most); f != nil {
			return item{frame: f, first: first, n: n}, true
		}
		m := w.lanes[laneFrames].take()
		if m == nil {
			break
		}
		w.open(work, m)
	}
	return item{}, false
}
