package dispatch

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	period    = 100 * time.Millisecond // of Book.Tick
	sweepTime = 10 * time.Second
	retryNap  = 300 * time.Millisecond // after the broker did not answer
	patience  = 10 * time.Second       // with one exchange

	// doubtAfter is how long a task may be out before it is looked whether it still is, in case the word of that was lost.
	// mostDoubts bounds how many are looked at in one period.
	doubtAfter, mostDoubts = 5 * time.Second, 50

	// mostFetched is how many tasks of a lane are read at once.
	mostFetched = 64
)

// Queue is one limited queue.
type Queue struct {
	Name   string
	Limits Limits
	// Drain says that the queue is limited no more: what still waits is let out, and it is looked again and again for more,
	// which the broker does not tell of any more.
	Drain bool
}

// Dispatcher lets out tasks of limited queues. Its methods are safe for concurrent use. Two of them for one queue let no
// task out twice, but each counts by itself.
type Dispatcher struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger

	changed chan struct{} // one slot: queues is another

	mu     sync.Mutex
	queues []Queue
}

// New returns a Dispatcher without queues.
func New(nc *nats.Conn, js jetstream.JetStream, log *slog.Logger) *Dispatcher {
	return &Dispatcher{nc: nc, js: js, log: log, changed: make(chan struct{}, 1)}
}

// Set has the dispatcher look after these queues from now on.
func (d *Dispatcher) Set(queues []Queue) {
	d.mu.Lock()
	d.queues = queues
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Run lets tasks out until ctx ends.
func (d *Dispatcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[string]*line{}
	stops := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for {
		d.mu.Lock()
		queues := d.queues
		d.mu.Unlock()
		wanted := map[string]bool{}
		for _, q := range queues {
			wanted[q.Name] = true
			if l := running[q.Name]; l != nil {
				l.set(q)
				continue
			}
			l := newLine(d, q)
			one, stop := context.WithCancel(ctx)
			running[q.Name], stops[q.Name] = l, stop
			wg.Go(func() { l.run(one) })
		}
		for name := range maps.Clone(running) {
			if !wanted[name] {
				stops[name]()
				delete(running, name)
				delete(stops, name)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		}
	}
}
