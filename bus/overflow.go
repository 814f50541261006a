package bus

import (
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// Policy says what a buffer does with an event that it has no room for.
type Policy int

const (
	// DropOldest forgets the event that has waited longest: what is handled is always recent. The default.
	DropOldest Policy = iota
	// DropNewest forgets the event that comes: what is handled is without gaps from the first to the last that fitted.
	DropNewest
	// Block takes no more off the network until there is room. What waits then waits in the sockets and at the broker,
	// which slows publishers down and at last cuts off a watch that stands still for ten seconds with 64 MiB behind it.
	Block
	// Fail ends the watch with the fault bus/overflow: for programs that would rather start over than miss something.
	Fail
)

// String gives the policy's name, as in documents and logs.
func (p Policy) String() string {
	switch p {
	case DropOldest:
		return "drop_oldest"
	case DropNewest:
		return "drop_newest"
	case Block:
		return "block"
	case Fail:
		return "fail"
	}
	return fmt.Sprintf("policy %d", int(p))
}

// inbox is a bounded queue of messages between a subscription and the workers of a Watcher. Its bound counts messages
// that wait, not those that a worker has taken. Safe for concurrent use.
type inbox struct {
	policy    Policy
	maxEvents int
	maxBytes  int

	mu       sync.Mutex
	came     sync.Cond // something to take, or closed
	room     sync.Cond // of Block: fewer wait, or closed
	ring     []*nats.Msg
	head, n  int
	bytes    int
	closed   bool
	overflow bool // of Fail
	dropped  uint64
}

func newInbox(policy Policy, maxEvents, maxBytes int) *inbox {
	b := &inbox{policy: policy, maxEvents: maxEvents, maxBytes: maxBytes, ring: make([]*nats.Msg, min(maxEvents, 64))}
	b.came.L, b.room.L = &b.mu, &b.mu
	return b
}

// put adds m, or does what the policy says. It reports false when the policy is Fail and there is no room.
func (b *inbox) put(m *nats.Msg) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return true
	}
	size := len(m.Data)
	for b.n > 0 && (b.n >= b.maxEvents || b.bytes+size > b.maxBytes) && b.policy != Block {
		switch b.policy {
		case Fail:
			b.dropped++
			b.overflow = true
			return false
		case DropNewest:
			b.dropped++
			return true
		default:
			b.dropped++
			b.popLocked()
		}
	}
	if b.n == len(b.ring) {
		b.growLocked()
	}
	b.ring[(b.head+b.n)%len(b.ring)] = m
	b.n++
	b.bytes += size
	if b.n == 1 {
		b.came.Signal()
	}
	return true
}

// take moves up to len(into) messages out, waiting for the first. It returns 0 once the inbox is closed and empty.
func (b *inbox) take(into []*nats.Msg) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.n == 0 {
		if b.closed {
			return 0
		}
		b.came.Wait()
	}
	got := min(b.n, len(into))
	for i := range got {
		into[i] = b.popLocked()
	}
	if b.n > 0 {
		b.came.Signal() // for another worker
	}
	b.room.Broadcast()
	return got
}

// awaitRoom blocks while the inbox is full; it serves Block.
func (b *inbox) awaitRoom() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && b.n > 0 && (b.n >= b.maxEvents || b.bytes >= b.maxBytes) {
		b.room.Wait()
	}
}

// close lets take return what is left and then 0, and nobody wait for room any more.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.came.Broadcast()
	b.room.Broadcast()
}

// lost is the number of messages dropped so far.
func (b *inbox) lost() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

func (b *inbox) popLocked() *nats.Msg {
	m := b.ring[b.head]
	b.ring[b.head] = nil
	b.head = (b.head + 1) % len(b.ring)
	b.n--
	b.bytes -= len(m.Data)
	return m
}

func (b *inbox) growLocked() {
	ring := make([]*nats.Msg, 2*len(b.ring))
	for i := range b.n {
		ring[i] = b.ring[(b.head+i)%len(b.ring)]
	}
	b.ring, b.head = ring, 0
}

// overflowCount counts what the watches of one topic have dropped.
type overflowCount struct {
	past uint64          // of watches that have ended
	now  []func() uint64 // of those that run
}

// countOverflow adds the drops of a running watch to the reports until done is called.
func (c *Counters) countOverflow(topic string, of func() uint64) (done func()) {
	c.overflowMu.Lock()
	defer c.overflowMu.Unlock()
	if c.overflow == nil {
		c.overflow = make(map[string]*overflowCount)
	}
	count := c.overflow[topic]
	if count == nil {
		count = &overflowCount{}
		c.overflow[topic] = count
	}
	at := len(count.now)
	count.now = append(count.now, of)
	return func() {
		c.overflowMu.Lock()
		defer c.overflowMu.Unlock()
		count.past += of()
		count.now[at] = func() uint64 { return 0 }
	}
}

// overflows returns what was dropped by topic, without topics of which nothing was.
func (c *Counters) overflows() map[string]uint64 {
	c.overflowMu.Lock()
	defer c.overflowMu.Unlock()
	var all map[string]uint64
	for topic, count := range c.overflow {
		sum := count.past
		for _, of := range count.now {
			sum += of()
		}
		if sum > 0 {
			if all == nil {
				all = make(map[string]uint64)
			}
			all[topic] = sum
		}
	}
	return all
}
