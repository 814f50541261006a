package bus

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// StageConfig tunes a Stage. The zero value is ready for production.
type StageConfig struct {
	Workers       int           // frames handled at once; default GOMAXPROCS
	InFlightBytes int           // most stored bytes held or on the way; default 8 MiB; at least two messages' worth
	Attempts      int           // tries of one event before it is parked; default 3
	Backoff       time.Duration // before the second try; doubles each time; default 50ms
	Timeout       time.Duration // of one try of one event; default 30s
	Drain         time.Duration // how long handlers may go on after the stop; default 8s, within the manifest's default stop grace of 10s

	Use []Middleware // around the handler, the first outermost

	// Settle, when set, is called after the handler is done with a frame's events and before the frame is acknowledged,
	// for handlers that hand events on and learn later whether they got there. first names the frame's first event. An
	// error has the whole frame delivered again. ctx ends when the Stage's Drain is over.
	Settle func(ctx context.Context, first wire.EventID) error
}

func (c StageConfig) withDefaults() StageConfig {
	c.Workers = cmp.Or(max(c.Workers, 0), runtime.GOMAXPROCS(0))
	c.InFlightBytes = cmp.Or(max(c.InFlightBytes, 0), 8<<20)
	c.Attempts = cmp.Or(max(c.Attempts, 0), 3)
	c.Backoff = cmp.Or(max(c.Backoff, 0), 50*time.Millisecond)
	c.Timeout = cmp.Or(max(c.Timeout, 0), 30*time.Second)
	c.Drain = cmp.Or(max(c.Drain, 0), 8*time.Second)
	return c
}

const (
	// aliveInterval is how often the broker is told that a frame is still held. The consumers' acknowledgement wait is
	// 5 s, so three signs may get lost.
	aliveInterval = 1500 * time.Millisecond

	// prefetch is the work that a Stage asks for in advance: enough to be busy through many round trips, little enough
	// that other instances find work too.
	prefetch = 250 * time.Millisecond

	// retryInFlightBytes bounds retried events in hand; they are rare.
	retryInFlightBytes = 1 << 20
)

// Stage hands the events of a topic to a handler, many frames at once. See the package comment for what it promises.
type Stage struct {
	conn    *Conn
	log     *slog.Logger
	subject string
	cfg     StageConfig
	source  wire.Source
	retry   *wire.Source        // where this service's retried events come from, or nil
	tries   func() tryFunc      // makes one worker's way to the handler
	frame   atomic.Int64        // moving mean of the time one frame takes, ns; 0 until known
	held    holding             // frames of this stage that the broker waits for
	blocked blockage            // is storing the output held up
	keyOf   func([]byte) string // the key of an event of an ordered source
	collect *collect            // of a stage that gathers sets, else nil
	panics  quiet               // limits what panics write into the log
	ready   chan struct{}
}

// tryFunc hands event e of frame f once to the handler.
type tryFunc func(ctx context.Context, e *rawEvent, out *Out) error

// rawEvent is an Event before it has a type.
type rawEvent struct {
	frame   uint64 // counts the worker's frames: within one only index, attempt and data change
	id      wire.EventID
	subject string
	time    time.Time
	attempt int
	returns int
	data    []byte
	content string      // content type that the message states
	header  nats.Header // of the message
	set     *rawSet     // that the event stands for; nil for most
}

// NewStage makes a Stage that hands the events of topic, and of everything below it, to fn. The grant must have a
// source for it: else the fault is bus/no-source.
func NewStage[T any](c *Conn, topic Topic[T], fn HandlerFunc[T], cfg StageConfig) (*Stage, error) {
	s, err := newStage(c, topic.subject, cfg)
	if err != nil {
		return nil, err
	}
	s.keyOf = keyFunc(topic, s.source)
	s.tries = func() tryFunc {
		var zero T
		var e Event[T] // one a worker: a variable of each call would be allocated each time
		frame := uint64(0)
		raw, onlyJSON := rawValue(topic.opts, &e.Value)
		through := false // the events of the frame in hand are put into raw as they are
		var to *Out
		work := Work{Kind: "stage", Name: topic.subject}
		var use HandleFunc
		if len(cfg.Use) > 0 {
			use = Wrap(cfg.Use, func(ctx context.Context) error { return fn(ctx, e, to) })
		}
		return func(ctx context.Context, r *rawEvent, out *Out) error {
			if r.frame != frame { // writing less also means fewer write barriers while garbage is collected
				frame = r.frame
				e.ID, e.Subject, e.Time, e.header = r.id, r.subject, r.time, r.header
				e.Returns = r.returns
				through = raw != nil && (!onlyJSON || readsJSON(r.content))
			}
			e.ID.Index, e.Attempt, e.Data = r.id.Index, r.attempt, r.data
			if through {
				*raw = r.data
			} else {
				e.Value = zero // a decoder adds to what is there
				if err := decode(topic.opts, r.content, r.data, &e.Value); err != nil {
					return err
				}
			}
			if use != nil {
				to, work.Subject, work.Event, work.Attempt = out, r.subject, r.id, r.attempt
				return use(ctx, &work)
			}
			return fn(ctx, e, out)
		}
	}
	return s, nil
}

// newStage makes a Stage of what does not depend on the type of its events.
func newStage(c *Conn, subject string, cfg StageConfig) (*Stage, error) {
	s := &Stage{
		conn: c, subject: subject, cfg: cfg.withDefaults(),
		log:   c.log.With("stage", subject),
		ready: make(chan struct{}),
	}
	s.blocked.log = s.log
	s.held.frames = make(map[heldKey]*held)
	var err error
	if s.source, err = c.source(subject); err != nil {
		return nil, err
	}
	s.retry = c.retrySource(s.source.Stream)
	return s, nil
}

// Ready is closed when the consumers exist and frames are asked for.
func (s *Stage) Ready() <-chan struct{} { return s.ready }

// Run handles frames until ctx ends, then stops as the package comment says. A Stage runs once.
func (s *Stage) Run(ctx context.Context) error {
	if s.source.PerKey {
		return s.runOrdered(ctx)
	}
	// Handlers outlive ctx by Drain, so their context only inherits its values.
	work, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)

	// Every frame in hand or on the way fits: the windows of both sources, so that feeders never wait on this channel
	// while the broker waits for a sign of life.
	queue := make(chan *held, 2*maxWindow)
	s.conn.counters.addWorkers(s.cfg.Workers)
	defer s.conn.counters.addWorkers(-s.cfg.Workers)

	var alive, workers sync.WaitGroup
	aliveCtx, rest := context.WithCancel(work)
	alive.Go(func() { s.held.keepAlive(aliveCtx, s.conn) })
	for range s.cfg.Workers {
		workers.Go(func() {
			w := newWorker(s)
			defer w.stop()
			for h := range queue {
				if ctx.Err() != nil {
					s.giveBack(h)
					continue
				}
				w.handle(work, h)
			}
		})
	}

	err := s.feedAll(ctx, queue)
	close(queue)
	grace := time.AfterFunc(s.cfg.Drain, func() {
		abandon(&fault.Error{Code: CodeTimeout, What: fmt.Sprintf("stopped: the drain of %v is over", s.cfg.Drain)})
	})
	workers.Wait()
	grace.Stop()
	rest()
	alive.Wait()
	return err
}

// feedAll takes frames off the sources until ctx ends.
func (s *Stage) feedAll(ctx context.Context, queue chan<- *held) error {
	group, ctx := errgroup.WithContext(ctx)
	sources := []feed{{
		stream: s.source.Stream, js: wire.StreamName(s.source.Stream), durable: s.source.Durable,
		bytes: s.cfg.InFlightBytes, window: s.window, power: s.source.Power,
	}}
	if s.retry != nil {
		sources = append(sources, feed{
			stream: s.retry.Stream, js: wire.StreamName(s.retry.Stream), durable: s.retry.Durable,
			bytes: retryInFlightBytes, window: func() int { return 2 * s.cfg.Workers },
		})
	}
	for i := range sources {
		if !s.conn.awaitConsumer(ctx, s.log, sources[i].js, sources[i].durable) {
			return nil // asked to stop
		}
	}
	close(s.ready)
	for i := range sources {
		group.Go(func() error { return s.feed(ctx, &sources[i], queue) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("stage %s: %w", s.subject, err)
	}
	return nil
}

// feed is one consumer that a Stage reads.
type feed struct {
	stream  string // name in the manifest
	js      string // and in JetStream
	durable string
	bytes   int
	window  func() int
	power   bool // its stream has durability power
}

func (s *Stage) feed(ctx context.Context, f *feed, queue chan<- *held) error {
	p := newPuller(s.conn, f.js, f.durable, f.bytes, f.window)
	p.power = f.power
	defer func() {
		for _, msg := range p.close(context.WithoutCancel(ctx)) {
			if h, err := s.held.add(p, f, msg); err == nil && h != nil {
				s.giveBack(h)
			}
		}
	}()
	for {
		msg, err := p.next(ctx)
		if ctx.Err() != nil {
			if err == nil {
				if h, err := s.held.add(p, f, msg); err == nil && h != nil {
					s.giveBack(h)
				}
			}
			return nil
		}
		if err != nil {
			return err
		}
		h, err := s.held.add(p, f, msg)
		if err != nil {
			return err
		}
		if h == nil {
			continue // delivered again while in hand
		}
		queue <- h // workers empty it until it is closed, after this function
	}
}

// window is how many frames to have in hand: what the workers finish within prefetch, two a worker at least.
func (s *Stage) window() int {
	mean := time.Duration(s.frame.Load())
	if mean == 0 {
		return max(64, 2*s.cfg.Workers) // nothing known yet
	}
	return min(max(s.cfg.Workers*int(prefetch/mean), 2*s.cfg.Workers), maxWindow)
}

// observe notes how long one frame took.
func (s *Stage) observe(took time.Duration) {
	mean := s.frame.Load()
	if mean == 0 {
		mean = int64(took)
	}
	s.frame.Store(max(mean+(int64(took)-mean)/8, 1)) // a lost update of two workers does no harm to a mean
}

// giveBack lets another instance have a frame at once.
func (s *Stage) giveBack(h *held) { s.held.end(s.conn, h, "-NAK") }

// source finds what the grant says about reading subject.
func (c *Conn) source(subject string) (wire.Source, error) {
	for _, src := range c.cfg.Grant.Consumes {
		if src.Stream == wire.RetryStream || src.Ordered {
			continue
		}
		filters := src.Subjects
		if len(filters) == 0 {
			filters = wire.StreamSubjects(src.Stream)
		}
		inside := true // everything that the consumer gives is under subject
		for _, filter := range filters {
			inside = inside && (wire.Covers(subject, filter) || wire.Covers(subject+".>", filter))
		}
		if inside {
			return src, nil
		}
	}
	return wire.Source{}, &fault.Error{
		Code: CodeNoSource, Where: subject,
		What: fmt.Sprintf("service %q does not consume %q alone", c.cfg.Grant.Service, subject),
		Fix:  c.cfg.Grant.Fix("consumes", subject),
	}
}

// retrySource finds where retried events of stream come from.
func (c *Conn) retrySource(stream string) *wire.Source {
	mine := strings.Join([]string{wire.RetryStream, c.cfg.Grant.Service, wire.StreamName(stream), ">"}, ".")
	for _, src := range c.cfg.Grant.Consumes {
		covers := func(filter string) bool { return wire.Covers(filter, mine) }
		if src.Stream == wire.RetryStream && !src.Ordered &&
			(len(src.Subjects) == 0 || slices.ContainsFunc(src.Subjects, covers)) {
			return &src
		}
	}
	return nil
}

// awaitConsumer waits until a consumer exists; it reports false when ctx ended first.
func (c *Conn) awaitConsumer(ctx context.Context, log *slog.Logger, stream, durable string) bool {
	for attempt := 0; ; attempt++ {
		_, err := c.js.Consumer(ctx, stream, durable)
		if err == nil {
			return true
		}
		if attempt == 0 && ctx.Err() == nil {
			log.InfoContext(ctx, "waiting for the consumer", "stream", stream, "durable", durable, "error", err)
		}
		if !sleep(ctx, retryDelay(attempt)) {
			return false
		}
	}
}
