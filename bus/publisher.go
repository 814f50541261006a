package bus

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"golang.org/x/sync/semaphore"
)

const (
	// DefaultLinger is how long an event waits for company: long enough to fill frames at a few thousand requests a
	// second, and below what a person or an HTTP client notices.
	DefaultLinger = 2 * time.Millisecond

	// DefaultWindowBytes bounds what a Publisher holds: 16 full frames, many more than are on the way to a broker on the
	// same host and back. With 64 of them their buffers fall out of the caches, which costs a tenth of the speed.
	DefaultWindowBytes = 8 << 20

	// PlainWindowBytes is the same where nothing is compressed. Bytes are cheap there, so a publisher outruns whoever
	// reads what it sends, and the broker has to read back from its files what it could have passed on at once. Waiting
	// for the broker after four frames leaves the others their turn.
	PlainWindowBytes = 4 << 20

	// publishPatience is how long a frame is tried while the broker is away. A restart of the broker takes one to
	// three seconds, so callers with that much time do not notice it.
	publishPatience = 10 * time.Second
)

// PublisherConfig tunes a Publisher. The zero value is ready for production.
type PublisherConfig struct {
	Linger      time.Duration // most that an event waits for company; default DefaultLinger; negative means not at all
	FrameBytes  int           // raw size at which a frame is sent at once; default TargetFrameBytes, uncompressed PlainFrameBytes
	ContentType string        // media type of the events; JSON and what is unknown need none
	WindowBytes int           // most raw bytes not acknowledged; Publish blocks beyond; default DefaultWindowBytes, uncompressed PlainWindowBytes
	NoWait      bool          // a full stream with the policy block is told at once too; for callers who can hold up theirs
}

// withDefaults fills in the zero fields. largest is what one message can hold.
func (c PublisherConfig) withDefaults(route wire.Route, largest int) PublisherConfig {
	codec, window := codecOf(route), DefaultWindowBytes
	if codec == wire.CodecNone && route.Partitions == 0 { // those of partitions wait for each frame as it is
		window = PlainWindowBytes
	}
	c.Linger = max(0, cmp.Or(c.Linger, DefaultLinger))
	c.FrameBytes = min(cmp.Or(c.FrameBytes, targetBytes(codec)), largest, wire.MaxFrameRawBytes)
	c.WindowBytes = max(cmp.Or(c.WindowBytes, window), c.FrameBytes)
	return c
}

// Publisher stores events on one subject by group commit: concurrent calls of Publish share frames. Safe for concurrent
// use.
type Publisher struct {
	conn    *Conn
	subject string
	route   wire.Route
	codec   wire.Codec
	cfg     PublisherConfig
	limit   int                 // bytes of one call's events
	window  *semaphore.Weighted // raw bytes
	ready   chan struct{}

	keys    keyReader    // of a stream with a key
	parts   []*Publisher // its partitions; nil without a key
	counted string       // of a partition: the subject that its events are counted under
	serial  bool         // of a partition: one frame is under way at a time

	mu       sync.Mutex
	open     *group              // the frame that takes events now, or nil
	groups   map[*group]struct{} // not settled yet; for Flush
	credit   int64               // bytes of the window taken ahead by Send
	failed   error               // of a frame with events of Send, until Flush tells it
	inFlight int                 // frames sent or waiting for company
	before   chan struct{}       // when serial: done of the frame begun last
	closed   bool
	sending  sync.WaitGroup // one a group; added to only while not closed
	spare    *sync.Pool     // *Builder; partitions share one, in which buffers are in use often enough to last
}

// NewPublisher makes a Publisher for subject, which must be declared under publishes: else the fault is bus/no-route.
// It works until its Run returns, or until Conn.Close when nobody runs it.
func (c *Conn) NewPublisher(subject string, cfg PublisherConfig) (*Publisher, error) {
	route, err := c.route(subject)
	if err != nil {
		return nil, err
	}
	limit := min(c.maxEventBytes(), wire.MaxFrameRawBytes)
	cfg = cfg.withDefaults(route, limit)
	p := &Publisher{
		conn: c, subject: subject, route: route, codec: codecOf(route), cfg: cfg, limit: limit,
		window: semaphore.NewWeighted(int64(cfg.WindowBytes)), ready: make(chan struct{}),
		groups: make(map[*group]struct{}), spare: &sync.Pool{New: func() any { return NewBuilder(codecOf(route)) }},
	}
	close(p.ready)
	if route.Partitions > 0 {
		p.newParts()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, closedFault(subject)
	}
	c.publishers = append(c.publishers, p)
	return p, nil
}

// sharedKey names the Publisher of one subject's events of one content type.
type sharedKey struct{ subject, contentType string }

// shared returns the Publisher that all Topic.Publish calls of subject use.
func (c *Conn) shared(subject, contentType string) (*Publisher, error) {
	key := sharedKey{subject, contentType}
	c.mu.Lock()
	p := c.byTopic[key]
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := c.NewPublisher(subject, PublisherConfig{ContentType: contentType})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.byTopic[key]; first != nil {
		return first, nil // somebody was quicker; ours holds nothing
	}
	c.byTopic[key] = p
	return p, nil
}

// Ready is closed from the start: Publish waits for the broker by itself.
func (p *Publisher) Ready() <-chan struct{} { return p.ready }

// Run blocks until ctx ends, then refuses new events and returns when those taken are stored or refused.
func (p *Publisher) Run(ctx context.Context) error {
	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishPatience)
	defer cancel()
	return p.drain(drain)
}

// Publish stores events, which stay together and in order in one frame, and returns the id of the first; the others
// follow it with the next indexes (without frames: each is a message of its own). It blocks while the window is full.
// The bytes are copied before it waits. On a stream with a key the events of each partition stay together and in order,
// and when it fails some may be stored.
//
// While the stream is full it waits for room, 10s at most, if the stream's policy is block; with the policy fail it gives
// bus/stream-full at once.
//
// An event waits up to Linger for company, unless nothing of this Publisher is under way. The errors are the faults
// bus/stream-full, bus/store-full, bus/too-large and bus/unavailable. After bus/unavailable the events may be stored all
// the same: an answer was lost, or ctx ended first.
func (p *Publisher) Publish(ctx context.Context, events ...[]byte) (wire.EventID, error) {
	if p.parts != nil {
		return p.publishKeyed(ctx, events)
	}
	size := 0
	for _, e := range events {
		size += len(e) + 1
	}
	if size > p.limit {
		return wire.EventID{}, tooLarge(p.subject, size, p.limit)
	}
	if len(events) == 0 {
		return wire.EventID{}, errors.New("publish no events")
	}
	weight := min(int64(size), int64(p.cfg.WindowBytes))
	if err := p.acquire(ctx, weight); err != nil {
		return wire.EventID{}, err
	}
	g, first, err := p.join(ctx, events, weight)
	if err != nil {
		p.window.Release(weight)
		return wire.EventID{}, err
	}
	// The group holds the weight now and releases it when it is settled, even when this caller leaves earlier.
	select {
	case <-g.done:
	case <-ctx.Done():
		return wire.EventID{}, ended(ctx, p.subject, nil)
	}
	switch {
	case g.err != nil:
		return wire.EventID{}, g.err
	case p.route.Frames:
		return wire.EventID{Stream: p.route.Stream, Seq: g.seqs[0], Index: first}, nil
	default:
		return wire.EventID{Stream: p.route.Stream, Seq: g.seqs[first]}, nil
	}
}

// drain refuses new events and waits until those taken are settled, or ctx ends.
func (p *Publisher) drain(ctx context.Context) error {
	if p.parts != nil {
		return p.drainParts(ctx)
	}
	p.mu.Lock()
	p.closed = true
	p.cutLocked()
	p.mu.Unlock()
	settled := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() { p.sending.Wait(); close(settled) })
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		// The groups end by themselves: each is tried for publishPatience at most.
		return ended(ctx, p.subject, errors.New("events taken are not stored yet"))
	}
}

func closedFault(subject string) error {
	return &fault.Error{
		Code: CodeUnavailable, Where: subject, What: "this process is stopping",
		Fix: "send it to another instance",
	}
}
