package bus

import (
	"maps"

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
	o.conn.counters.countDropped(msg.Subject, events)
	if o.droppedEvents == nil {
		o.droppedEvents = make(map[string]uint64)
	}
	o.droppedEvents[msg.Subject] += events
}
