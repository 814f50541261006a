package bus

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// drops reports whether an event that subject's stream has no room for is dropped and counted.
func (c *Conn) drops(subject string, err error) bool {
	if fault.Code(err) != CodeStreamFull {
		return false
	}
	route, noRoute := c.route(subject)
	return noRoute == nil && route.Full == wire.FullDropNewest
}

// dropsNewest reports whether a stream that the service publishes to drops what it has no room for.
func (c *Conn) dropsNewest(stream string) bool {
	return slices.ContainsFunc(c.cfg.Grant.Publish, func(r wire.Route) bool { return r.Stream == stream && r.Full == wire.FullDropNewest })
}

// put stores one message of p. It waits for room where the stream's policy is to block.
func (p *Publisher) put(ctx context.Context, h nats.Header, data []byte) (*jetstream.PubAck, error) {
	for attempt := 0; ; attempt++ {
		ack, err := p.conn.PublishFrame(ctx, p.subject, h, data)
		if fault.Code(err) != CodeStreamFull || p.cfg.NoWait || cmp.Or(p.route.Full, wire.FullBlock) != wire.FullBlock {
			return ack, err
		}
		if !sleep(ctx, retryDelay(attempt)) {
			return nil, err
		}
	}
}

// count counts what became of a group without an error: a sequence of 0 says that it was dropped.
func (p *Publisher) count(g *group) {
	subject, b := cmp.Or(p.counted, p.subject), g.builder
	events, bytes := b.Len(), b.RawBytes()-b.Len() // without the newlines
	if p.route.Frames && g.seqs[0] == 0 {
		p.conn.counters.countDropped(subject, uint64(events))
		return
	}
	if !p.route.Frames {
		dropped := 0
		for i, seq := range g.seqs {
			if seq == 0 {
				dropped, bytes = dropped+1, bytes-len(b.events.event(i))
			}
		}
		if dropped > 0 {
			p.conn.counters.countDropped(subject, uint64(dropped))
		}
		events -= dropped
	}
	if events > 0 {
		p.conn.counters.AddOut(subject, uint64(events), uint64(bytes))
	}
}

// conditional reports whether a message is one of a chain, which must not lose a link.
func conditional(h nats.Header) bool {
	return len(h[jetstream.ExpectedLastSubjSeqHeader]) > 0 || len(h[jetstream.ExpectedLastSeqHeader]) > 0
}

// countDropped counts events that were dropped because the stream of subject was full.
func (c *Counters) countDropped(subject string, events uint64) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	if c.fullDrops == nil {
		c.fullDrops = make(map[string]uint64)
	}
	c.fullDrops[subject] += events
}

// fullDropsLocked adds what was dropped to a report's map and returns it.
func (c *Counters) fullDropsLocked(all map[string]uint64) map[string]uint64 {
	if len(c.fullDrops) == 0 {
		return all
	}
	sum := maps.Clone(all)
	if sum == nil {
		sum = make(map[string]uint64)
	}
	for subject, n := range c.fullDrops {
		sum[subject] += n
	}
	return sum
}

// dropOf counts a message of a stage's output that was dropped, event by event.
func (o *Out) dropOf(msg *nats.Msg) {
	f := Frame{Subject: msg.Subject, Header: msg.Header}
	events := uint64(1)
	if f.parse(msg.Data) == nil {
		events = uint64(f.Len())
	}
	route, _ := o.conn.route(msg.Subject) // it is one that drops
	o.conn.counters.countDropped(published(route.Stream, msg.Subject), events)
	if o.droppedEvents == nil {
		o.droppedEvents = make(map[string]uint64)
	}
	o.droppedEvents[msg.Subject] += events
}
