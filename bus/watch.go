package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

const (
	// DefaultWatchBuffer and DefaultWatchBytes bound what waits for the handlers of a Watcher.
	DefaultWatchBuffer = 4096
	DefaultWatchBytes  = 16 << 20

	// watchBatch is how many events a worker takes at once, so that it meets the subscription's lock seldom. Small
	// buffers are taken in smaller steps, so that what is in a worker's hands stays a small part of what waits.
	watchBatch = 64
)

// WatchConfig tunes a Watcher. The zero value is ready for production.
type WatchConfig struct {
	Workers int           // events handled at once; default 1, which keeps each publisher's order
	Buffer  int           // most events that wait; default DefaultWatchBuffer
	Bytes   int           // most bytes that wait; default DefaultWatchBytes; one event always fits
	Full    Policy        // what happens to an event beyond these; default DropOldest
	Timeout time.Duration // of one event; default 30s
	Drain   time.Duration // how long handlers may go on after the stop; default 8s
	Use     []Middleware  // around the handler, the first outermost
}

func (c WatchConfig) withDefaults() WatchConfig {
	c.Workers = cmp.Or(max(c.Workers, 0), 1)
	c.Buffer = cmp.Or(max(c.Buffer, 0), DefaultWatchBuffer)
	c.Bytes = cmp.Or(max(c.Bytes, 0), DefaultWatchBytes)
	c.Timeout = cmp.Or(max(c.Timeout, 0), 30*time.Second)
	c.Drain = cmp.Or(max(c.Drain, 0), 8*time.Second)
	return c
}

// WatchFunc handles one live event. Nobody is told what it returns: an error is counted and logged, and the event is
// not tried again.
type WatchFunc[T any] func(ctx context.Context, e Event[T]) error

// Watcher hands live events to a handler: every instance gets every event that is published while it runs. Nothing of
// it is stored, and what is published while the connection is away is not seen.
type Watcher struct {
	conn   *Conn
	log    *slog.Logger
	topic  string
	cfg    WatchConfig
	inbox  *inbox
	handle func() func(ctx context.Context, m *nats.Msg) error // makes one worker's way to the handler
	noise  quiet
	ready  chan struct{}
	fail   chan struct{} // closed when the policy Fail has met its case
	failed sync.Once

	mu     sync.Mutex
	subs   []*nats.Subscription
	missed uint64 // dropped by subscriptions that have ended
}

// Watch returns a Watcher that hands the live events of the topic, and of everything below it, to fn.
func (t Topic[T]) Watch(conn *Conn, fn WatchFunc[T], cfg WatchConfig) *Watcher {
	cfg = cfg.withDefaults()
	return &Watcher{
		conn: conn, topic: t.subject, cfg: cfg, log: conn.log.With("watch", t.subject),
		inbox: newInbox(cfg.Full, cfg.Buffer, cfg.Bytes), ready: make(chan struct{}), fail: make(chan struct{}),
		handle: func() func(context.Context, *nats.Msg) error {
			var zero T
			var e Event[T]
			work := Work{Kind: "watch", Name: t.subject, Attempt: 1}
			use := Wrap(cfg.Use, func(ctx context.Context) error { return fn(ctx, e) })
			return func(ctx context.Context, m *nats.Msg) error {
				e.Subject, e.Time, e.Attempt, e.Data, e.Value = m.Subject, time.Now(), 1, m.Data, zero
				content := ""
				if e.header = m.Header; m.Header != nil {
					content = wire.ContentType(m.Header)
					ctx = Continue(ctx, m.Header)
				}
				if err := decode(t.opts, content, m.Data, &e.Value); err != nil {
					return err
				}
				work.Subject = m.Subject
				return use(ctx, &work)
			}
		},
	}
}

// Ready is closed when the broker knows of this Watcher.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Dropped is the exact number of events that came and found no room. The reports of the process hold it too.
func (w *Watcher) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := w.inbox.lost() + w.missed
	for _, sub := range w.subs {
		n, err := sub.Dropped()
		if err == nil { // else it has ended, and missed holds it
			sum += uint64(n)
		}
	}
	return sum
}

// Run handles events until ctx ends, then those that have reached it, and returns. It returns the fault bus/not-watched
// when the topic is not declared under watches, and bus/overflow when the policy is Fail and there was no room.
func (w *Watcher) Run(ctx context.Context) error {
	patterns := w.conn.watched(w.topic)
	if len(patterns) == 0 {
		return w.conn.undeclared(CodeNotWatched, "watch", "watches", w.topic)
	}
	nc := w.conn.nc
	if w.cfg.Full == Block {
		own, err := w.dial(ctx)
		if err != nil {
			return err
		}
		defer own.Close()
		nc = own
	}
	work, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	defer w.conn.counters.countOverflow(w.topic, w.Dropped)()
	closed, err := w.subscribe(nc, patterns)
	if err != nil {
		w.inbox.close()
		return err
	}
	var workers sync.WaitGroup
	for range w.cfg.Workers {
		workers.Go(func() { w.work(work) })
	}
	flush, cancel := context.WithTimeout(ctx, ackTimeout)
	_ = nc.FlushWithContext(flush) // while disconnected it fails; nats.go subscribes again when the bus is back
	cancel()
	close(w.ready)
	select {
	case <-ctx.Done():
	case <-w.fail:
		err = &fault.Error{
			Code: CodeOverflow, Where: w.topic, What: fmt.Sprintf("more than %d live events or %d bytes wait", w.cfg.Buffer, w.cfg.Bytes),
			Fix: "make the handler faster, give it more workers or a larger buffer, or choose a policy that drops",
		}
	}
	grace := time.AfterFunc(w.cfg.Drain, func() {
		abandon(errors.New("the drain is over"))
		w.inbox.close()
	})
	defer grace.Stop()
	w.unsubscribe(work, closed, err == nil)
	w.inbox.close()
	workers.Wait()
	return err
}

// dial makes a connection of its own for Block, whose reading can stop without stopping anything else.
func (w *Watcher) dial(ctx context.Context) (*nats.Conn, error) {
	opts := append(w.conn.options(), nats.SetCustomDialer(throttled{w.inbox}),
		nats.PingInterval(time.Hour), // a connection that is not read would be taken for dead
		nats.ReconnectHandler(func(*nats.Conn) { w.log.Info("bus connection is back: live events were missed") }))
	nc, err := nats.Connect(w.conn.cfg.URL, opts...)
	for attempt := 0; err != nil; attempt++ {
		if !sleep(ctx, reconnectDelay(attempt)) {
			return nil, ended(ctx, w.topic, err)
		}
		nc, err = nats.Connect(w.conn.cfg.URL, opts...)
	}
	w.conn.credential.covers(nc)
	return nc, nil
}

// throttled dials connections that are not read while inbox is full.
type throttled struct{ inbox *inbox }

func (t throttled) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	return throttledConn{conn, t.inbox}, nil
}

type throttledConn struct {
	net.Conn
	inbox *inbox
}

func (t throttledConn) Read(p []byte) (int, error) {
	t.inbox.awaitRoom()
	return t.Conn.Read(p)
}

// subscribe starts to listen. The channels it returns are closed when the subscriptions' callbacks have ended.
func (w *Watcher) subscribe(nc *nats.Conn, patterns []string) (closed []chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pattern := range patterns {
		sub, err := nc.Subscribe(pattern, w.receive)
		if err != nil {
			for _, sub := range w.subs {
				_ = sub.Unsubscribe() // the connection is closed, else subscribing would not have failed
			}
			w.subs = nil
			return nil, fmt.Errorf("watch %s: %w", pattern, err)
		}
		done := make(chan struct{})
		sub.SetClosedHandler(func(string) { close(done) })
		w.subs, closed = append(w.subs, sub), append(closed, done)
	}
	return closed, nil
}

// receive is the subscription's callback. It never waits, so nats.go's own buffer before it stays all but empty; what
// that buffer drops all the same, when this process gets no CPU, is counted too.
func (w *Watcher) receive(m *nats.Msg) {
	if !w.inbox.put(m) {
		w.failed.Do(func() { close(w.fail) })
	}
}

// unsubscribe stops listening; when drain is set it waits for what has reached this process.
func (w *Watcher) unsubscribe(work context.Context, closed []chan struct{}, drain bool) {
	w.mu.Lock()
	subs := w.subs
	w.mu.Unlock()
	for i, sub := range subs {
		n, _ := sub.Dropped() // one that has ended says nothing
		if drain && sub.Drain() == nil {
			select {
			case <-closed[i]:
			case <-work.Done():
			}
		}
		_ = sub.Unsubscribe() // fails only when that has happened already
		w.mu.Lock()
		w.missed += uint64(max(n, 0))
		w.subs = w.subs[1:]
		w.mu.Unlock()
	}
}

// work handles what waits until the inbox is closed and empty.
func (w *Watcher) work(ctx context.Context) {
	handle := w.handle()
	limit := &deadline{after: w.cfg.Timeout, overrun: &fault.Error{
		Code: CodeTimeout, What: fmt.Sprintf("the handler took longer than %v", w.cfg.Timeout), Fix: "make it faster, or raise the watch's Timeout",
	}}
	defer limit.stop()
	batch := make([]*nats.Msg, min(watchBatch, max(1, w.cfg.Buffer/16)))
	for {
		n := w.inbox.take(batch)
		if n == 0 || ctx.Err() != nil {
			return
		}
		bytes := 0
		for i, m := range batch[:n] {
			bytes += len(m.Data)
			batch[i] = nil
			if err := w.once(limit.begin(ctx), limit, handle, m); err != nil {
				w.conn.counters.Failed.Add(1)
				if now, more := w.noise.pass(); now {
					w.log.Warn("a live event was not handled", "subject", m.Subject, "error", err, "more_not_logged", more)
				}
			}
		}
		w.conn.counters.EventsIn.Add(uint64(n))
		w.conn.counters.AddEdge("watches", w.topic, uint64(n))
		w.conn.counters.BytesIn.Add(uint64(bytes))
	}
}

// once calls the handler with a limit on its time and a net under its panics.
func (w *Watcher) once(ctx context.Context, limit *deadline, handle func(context.Context, *nats.Msg) error, m *nats.Msg) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &fault.Error{Code: CodePanic, What: fmt.Sprintf("the handler panicked: %v\n%s", p, debug.Stack()), Fix: "see the stack"}
		}
		limit.over()
	}()
	return handle(ctx, m)
}
