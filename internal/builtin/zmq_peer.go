package builtin

import (
	"context"
	"sync"

	"github.com/hozo-dev/hozo/internal/zmtp"
)

// zmqPeerBytes bounds what waits for one peer beside its high-water mark. One message fits in any case.
const zmqPeerBytes = 8 << 20

// zmqPeer is a peer that is given messages. What waits for it is bounded; who gives it more is the caller's affair.
type zmqPeer struct {
	conn   *zmtp.Conn
	hwm    int
	roomy  func()          // called when it takes messages again
	landed func(any, bool) // called for each mark once its message was written, or never will be
	wake   chan struct{}   // one slot: something waits, or closed has changed

	mu      sync.Mutex
	buf     []byte // encoded messages that wait
	marks   []any  // one a message in buf
	waiting int    // messages in buf and in the writer's hands
	bytes   int    // of them
	full    bool   // it was at its mark and has not come down to half of it
	closed  bool
}

func newZMQPeer(conn *zmtp.Conn, hwm int, roomy func(), landed func(any, bool)) *zmqPeer {
	return &zmqPeer{conn: conn, hwm: hwm, roomy: roomy, landed: landed, wake: make(chan struct{}, 1)}
}

// offer has the peer take an encoded message, or reports that it does not now. Once it has refused one it takes none
// until half of what waited is written: else a slow peer would get a little of every frame and hold all of them up.
func (p *zmqPeer) offer(encode func(dst []byte) []byte, mark any) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.full {
		return false
	}
	before := len(p.buf)
	p.buf = encode(p.buf)
	p.marks = append(p.marks, mark)
	p.waiting++
	p.bytes += len(p.buf) - before
	p.full = p.waiting >= p.hwm || p.bytes >= zmqPeerBytes
	select {
	case p.wake <- struct{}{}:
	default: // it knows
	}
	return true
}

// close lets the writer end once what waits is written, or at once when the connection is broken.
func (p *zmqPeer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// write writes what is offered until close, or an error of the connection, which it returns. Every mark has landed when
// it returns.
func (p *zmqPeer) write() (err error) {
	var buf []byte
	var marks []any
	for range p.wake {
		for {
			p.mu.Lock()
			buf, p.buf = p.buf, buf[:0]
			marks, p.marks = p.marks, marks[:0]
			closed := p.closed
			p.mu.Unlock()
			if len(marks) == 0 {
				if closed {
					return err
				}
				break
			}
			if err == nil {
				err = p.conn.Write(buf)
			}
			p.settle(len(marks), len(buf), err)
			for i, mark := range marks {
				p.landed(mark, err == nil)
				marks[i] = nil
			}
			if cap(buf) > zmqPeerBytes {
				buf = nil
			}
		}
	}
	return err
}

// settle gives back the room of written messages.
func (p *zmqPeer) settle(messages, bytes int, err error) {
	p.mu.Lock()
	p.waiting -= messages
	p.bytes -= bytes
	p.closed = p.closed || err != nil
	again := p.full && p.waiting <= p.hwm/2 && p.bytes <= zmqPeerBytes/2
	if again {
		p.full = false
	}
	if p.closed { // so that the loop comes around to see it
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	p.mu.Unlock()
	if again {
		p.roomy()
	}
}

// servePeer writes what p is offered and reads what it says, until the connection ends or ctx does. leave takes it out
// of what offers to it.
func servePeer(ctx context.Context, p *zmqPeer, subscribe func(*zmtp.Subscription) error, leave func()) error {
	var writer sync.WaitGroup
	var wrote error
	writer.Go(func() {
		wrote = p.write()
		if wrote != nil {
			_ = p.conn.Close() // the reader ends
		}
	})
	err := listenTo(p.conn, subscribe)
	leave()
	if ctx.Err() == nil {
		_ = p.conn.Close() // what waits for it cannot be written any more
	}
	p.close()
	writer.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listenTo reads subscriptions from a peer until the connection ends. What else it says has no meaning here.
func listenTo(conn *zmtp.Conn, subscribe func(*zmtp.Subscription) error) error {
	var m zmtp.Message
	for {
		sub, err := conn.ReadMessage(&m)
		if err != nil {
			return err
		}
		if sub == nil {
			sub = m.AsSubscription()
		}
		if sub != nil {
			if err := subscribe(sub); err != nil {
				return err
			}
		}
	}
}
