package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// group is the events of one frame and what became of them.
type group struct {
	builder *Builder
	full    chan struct{} // closed when it takes no more
	done    chan struct{} // closed when seqs or err is settled
	after   chan struct{} // of a serial Publisher: done of the frame before, or nil
	weight  int64         // raw bytes that it holds of the window
	traces  traces
	sent    bool     // holds events of Send, whose caller does not wait
	seqs    []uint64 // one, or one an event when the stream has no frames
	err     error
}

// join adds events to the open group, or to a new one, and returns it with the index of the first.
func (p *Publisher) join(ctx context.Context, events [][]byte, weight int64) (*group, int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, 0, closedFault(p.subject)
	}
	g, first := p.addLocked(ctx, events, weight)
	return g, first, nil
}

// addLocked is join without its refusals.
func (p *Publisher) addLocked(ctx context.Context, events [][]byte, weight int64) (*group, int) {
	if g := p.open; g != nil && g.builder.RawBytes()+int(weight) > p.cfg.FrameBytes {
		p.cutLocked()
	}
	if p.open == nil {
		p.beginLocked(ctx)
	}
	g := p.open
	first := g.builder.Len()
	for _, e := range events {
		g.builder.events.addOne(e) // fits: the size was checked, and FrameBytes is within a frame's limit
	}
	if t, ok := TraceOf(ctx); ok && t.Sampled {
		g.traces.add(first, first+len(events)-1, t.Child())
	}
	g.weight += weight
	if g.builder.RawBytes() >= p.cfg.FrameBytes || g.builder.Len() >= MaxFrameEvents {
		p.cutLocked()
	}
	return g, first
}

// beginLocked opens a group and starts the goroutine that stores it.
func (p *Publisher) beginLocked(ctx context.Context) {
	g := &group{builder: p.spare.Get().(*Builder), full: make(chan struct{}), done: make(chan struct{})}
	p.open = g
	p.groups[g] = struct{}{}
	if p.serial {
		g.after, p.before = p.before, g.done
	}
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

// errTried is why a frame is given up. It is made once: for small frames it showed beside all else.
var errTried = fmt.Errorf("the frame was tried for %v", publishPatience)

// commit waits for company, stores the group and settles it.
func (p *Publisher) commit(ctx context.Context, g *group, linger time.Duration) {
	if g.after != nil {
		<-g.after // it ends by itself, within publishPatience
		linger = 0
	}
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

	ctx, cancel := context.WithTimeoutCause(ctx, publishPatience, errTried)
	defer cancel()
	if p.route.Frames {
		g.seqs, g.err = p.storeFrame(ctx, g)
	} else {
		g.seqs, g.err = p.storeEvents(ctx, g)
	}
	if g.err == nil {
		p.count(g)
	}
	g.builder.Reset()
	p.spare.Put(g.builder)
	p.window.Release(g.weight)
	p.mu.Lock()
	delete(p.groups, g)
	if g.sent && g.err != nil && p.failed == nil {
		p.failed = g.err
	}
	p.inFlight-- // before anybody hears of it, so that who comes next does not wait for company in vain
	p.mu.Unlock()
	close(g.done)
}

func (p *Publisher) storeFrame(ctx context.Context, g *group) ([]uint64, error) {
	header := nats.Header{jetstream.MsgIDHeader: {nuid.Next()}}
	if ct := stated(p.cfg.ContentType); ct != "" {
		header[wire.HeaderContentType] = []string{ct}
	}
	g.traces.put(header, 0, g.builder.Len())
	ack, err := p.put(ctx, header, g.builder.Frame())
	if err != nil {
		return nil, err
	}
	return []uint64{ack.Sequence}, nil
}

// storeEvents stores each event as a message of its own, all at once, and repeats those that need it.
func (p *Publisher) storeEvents(ctx context.Context, g *group) ([]uint64, error) {
	b := g.builder
	msgs := make([]*nats.Msg, b.Len())
	futures := make([]jetstream.PubAckFuture, b.Len())
	for i := range msgs {
		id := nuid.Next()
		header := nats.Header{jetstream.MsgIDHeader: {id}}
		p.conn.cloudEvent(id, p.subject, p.cfg.ContentType, time.Now()).Put(header)
		if t, ok := g.traces.of(i); ok {
			t.Put(header)
		}
		msgs[i] = &nats.Msg{Subject: p.subject, Header: header, Data: b.events.event(i)}
		futures[i], _ = p.conn.send(msgs[i]) // one that cannot be sent now is tried again below
	}
	seqs := make([]uint64, len(msgs))
	for i, msg := range msgs {
		var ack *jetstream.PubAck
		err := error(nil)
		if futures[i] != nil {
			ack, err = p.conn.await(ctx, futures[i])
		}
		if futures[i] == nil || (err != nil && (retryable(err) || fault.Code(err) == CodeStreamFull)) {
			ack, err = p.put(ctx, msg.Header, msg.Data) // which knows what to do about a full stream
		}
		if err != nil {
			return nil, err
		}
		seqs[i] = ack.Sequence
	}
	return seqs, nil
}
