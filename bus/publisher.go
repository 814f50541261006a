package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/semaphore"
)

const (
	// DefaultLinger is how long an event waits for company: long enough to fill frames at a few thousand requests a
	// second, and below what a person or an HTTP client notices.
	DefaultLinger = 2 * time.Millisecond

	// DefaultWindowBytes bounds what a Publisher holds: 128 full frames.
	DefaultWindowBytes = 32 << 20

	// publishPatience is how long a frame is tried while the broker is away. A restart of the broker takes one to
	// three seconds, so callers with that much time do not notice it.
	publishPatience = 10 * time.Second
)

// PublisherConfig tunes a Publisher. The zero value is ready for production.
type PublisherConfig struct {
	Linger      time.Duration // most that an event waits for company; default DefaultLinger; negative means not at all
	FrameBytes  int           // raw size at which a frame is sent at once; default TargetFrameBytes
	WindowBytes int           // most raw bytes not acknowledged; Publish blocks beyond; default DefaultWindowBytes
}

// withDefaults fills in the zero fields. largest is what one message can hold.
func (c PublisherConfig) withDefaults(largest int) PublisherConfig {
	c.Linger = max(0, cmp.Or(c.Linger, DefaultLinger))
	c.FrameBytes = min(cmp.Or(c.FrameBytes, TargetFrameBytes), largest, wire.MaxFrameRawBytes)
	c.WindowBytes = max(cmp.Or(c.WindowBytes, DefaultWindowBytes), c.FrameBytes)
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
	window  *semaphore.Weighted // raw bytes
	ready   chan struct{}

	mu       sync.Mutex
	open     *group // the frame that takes events now, or nil
	inFlight int    // frames sent or waiting for company
	closed   bool
	sending  sync.WaitGroup // one a group; added to only while not closed
	spare    sync.Pool      // *Builder
}

// group is the events of one frame and what became of them.
type group struct {
	builder *Builder
	full    chan struct{} // closed when it takes no more
	done    chan struct{} // closed when seqs or err is settled
	weight  int64         // raw bytes that it holds of the window
	seqs    []uint64      // one, or one an event when the stream has no frames
	err     error
}

// NewPublisher makes a Publisher for subject, which must be declared under publishes: else the fault is bus/no-route.
// It works until its Run returns, or until Conn.Close when nobody runs it.
func (c *Conn) NewPublisher(subject string, cfg PublisherConfig) (*Publisher, error) {
	route, err := c.route(subject)
	if err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults(c.maxEventBytes())
	p := &Publisher{
		conn: c, subject: subject, route: route, codec: codecOf(route), cfg: cfg,
		window: semaphore.NewWeighted(int64(cfg.WindowBytes)), ready: make(chan struct{}),
	}
	close(p.ready)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, closedFault(subject)
	}
	c.publishers = append(c.publishers, p)
	return p, nil
}

// shared returns the Publisher that all Topic.Publish calls of subject use.
func (c *Conn) shared(subject string) (*Publisher, error) {
	c.mu.Lock()
	p := c.byTopic[subject]
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := c.NewPublisher(subject, PublisherConfig{})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.byTopic[subject]; first != nil {
		return first, nil // somebody was quicker; ours holds nothing
	}
	c.byTopic[subject] = p
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
// The bytes are copied before it waits.
//
// An event waits up to Linger for company, unless nothing of this Publisher is under way. The errors are the faults
// bus/stream-full, bus/too-large and bus/unavailable. After bus/unavailable the events may be stored all the same: an
// answer was lost, or ctx ended first.
func (p *Publisher) Publish(ctx context.Context, events ...[]byte) (wire.EventID, error) {
	size := 0
	for _, e := range events {
		size += len(e) + 1
	}
	if limit := min(p.conn.maxEventBytes(), wire.MaxFrameRawBytes); size > limit {
		return wire.EventID{}, tooLarge(p.subject, size, limit)
	}
	if len(events) == 0 {
		return wire.EventID{}, errors.New("publish no events")
	}
	weight := min(int64(size), int64(p.cfg.WindowBytes))
	if err := p.window.Acquire(ctx, weight); err != nil {
		return wire.EventID{}, ended(ctx, p.subject, errors.New("the window of unacknowledged bytes is full"))
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

// join adds events to the open group, or to a new one, and returns it with the index of the first.
func (p *Publisher) join(ctx context.Context, events [][]byte, weight int64) (*group, int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, 0, closedFault(p.subject)
	}
	if g := p.open; g != nil && g.builder.RawBytes()+int(weight) > p.cfg.FrameBytes {
		p.cutLocked()
	}
	if p.open == nil {
		p.beginLocked(ctx)
	}
	g := p.open
	first := g.builder.Len()
	for _, e := range events {
		g.builder.Add(e) // fits: the size was checked, and FrameBytes is within a frame's limit
	}
	g.weight += weight
	if g.builder.RawBytes() >= p.cfg.FrameBytes || g.builder.Len() >= MaxFrameEvents {
		p.cutLocked()
	}
	return g, first, nil
}

// beginLocked opens a group and starts the goroutine that stores it.
func (p *Publisher) beginLocked(ctx context.Context) {
	b, ok := p.spare.Get().(*Builder)
	if !ok {
		b = NewBuilder(p.codec)
	}
	g := &group{builder: b, full: make(chan struct{}), done: make(chan struct{})}
	p.open = g
	p.inFlight++
	linger := p.cfg.Linger
	if p.inFlight == 1 {
		linger = 0 // nothing under way: company would come too late to help anybody
	}
	// The frame belongs to everybody in it, so it outlives the call that began it.
	ctx = context.WithoutCancel(ctx)
	p.sending.Go(func() { p.commit(ctx, g, linger) })
}

// cutLocked sends the open group off.
func (p *Publisher) cutLocked() {
	if p.open != nil {
		close(p.open.full)
		p.open = nil
	}
}

// commit waits for company, stores the group and settles it.
func (p *Publisher) commit(ctx context.Context, g *group, linger time.Duration) {
	if linger > 0 {
		timer := time.NewTimer(linger)
		select {
		case <-timer.C:
		case <-g.full:
		}
		timer.Stop()
	}
	p.mu.Lock()
	if p.open == g {
		p.cutLocked()
	}
	p.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, publishPatience,
		fmt.Errorf("the frame was tried for %v", publishPatience))
	defer cancel()
	if p.route.Frames {
		g.seqs, g.err = p.storeFrame(ctx, g.builder)
	} else {
		g.seqs, g.err = p.storeEvents(ctx, g.builder)
	}
	if g.err == nil {
		events := uint64(g.builder.Len())
		p.conn.counters.AddOut(p.subject, events, uint64(g.builder.RawBytes())-events) // without the newlines
	}
	g.builder.Reset()
	p.spare.Put(g.builder)
	p.window.Release(g.weight)
	p.mu.Lock()
	p.inFlight-- // before anybody hears of it, so that who comes next does not wait for company in vain
	p.mu.Unlock()
	close(g.done)
}

func (p *Publisher) storeFrame(ctx context.Context, b *Builder) ([]uint64, error) {
	header := nats.Header{jetstream.MsgIDHeader: {nuid.Next()}}
	ack, err := p.conn.PublishFrame(ctx, p.subject, header, b.Frame())
	if err != nil {
		return nil, err
	}
	return []uint64{ack.Sequence}, nil
}

// storeEvents stores each event as a message of its own, all at once, and repeats those that need it.
func (p *Publisher) storeEvents(ctx context.Context, b *Builder) ([]uint64, error) {
	msgs := make([]*nats.Msg, b.Len())
	futures := make([]jetstream.PubAckFuture, b.Len())
	for i := range msgs {
		header := nats.Header{jetstream.MsgIDHeader: {nuid.Next()}}
		msgs[i] = &nats.Msg{Subject: p.subject, Header: header, Data: b.events.event(i)}
		futures[i], _ = p.conn.send(msgs[i]) // one that cannot be sent now is tried again below
	}
	seqs := make([]uint64, len(msgs))
	for i, msg := range msgs {
		var ack *jetstream.PubAck
		err := error(nil)
		if futures[i] != nil {
			ack, err = await(ctx, futures[i])
		}
		if futures[i] == nil || (err != nil && retryable(err)) {
			ack, err = p.conn.PublishFrame(ctx, p.subject, msg.Header, msg.Data)
		}
		if err != nil {
			return nil, err
		}
		seqs[i] = ack.Sequence
	}
	return seqs, nil
}

// drain refuses new events and waits until those taken are settled, or ctx ends.
func (p *Publisher) drain(ctx context.Context) error {
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
