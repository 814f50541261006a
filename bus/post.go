package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
)

// Posted is called when the fate of a posted message is known, from a goroutine that serves all posts: it must not
// block. duplicate says that the stream had the message already.
type Posted func(seq uint64, duplicate bool, err error)

// posts are messages whose acknowledgements are on their way. One subscription takes all of them: a future and a reply
// subject each, as nats.go's asynchronous publishing has them, cost more than the message.
type posts struct {
	prefix string

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]Posted
}

// Post sends one message to a stream and returns at once; done is called exactly once, unless an error is returned. It
// is tried once: when the connection is lost before the answer, done gets bus/unavailable, and the message may be
// stored or not. msg is not changed and not used after Post returns. The caller bounds how many are on their way. A
// broker that refuses the subject does not answer at all, so callers must look at their rights first.
func (c *Conn) Post(msg *nats.Msg, done Posted) error {
	p, err := c.posting()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.next++
	n := p.next
	p.waiting[n] = done
	p.mu.Unlock()
	var buf [96]byte
	reply := string(strconv.AppendUint(append(buf[:0], p.prefix...), n, 36))
	if len(msg.Header) == 0 {
		err = c.nc.PublishRequest(msg.Subject, reply, msg.Data)
	} else {
		sent := *msg
		sent.Reply = reply
		err = c.nc.PublishMsg(&sent)
	}
	if err != nil && p.take(n) != nil {
		return publishFault(msg.Subject, err)
	}
	return nil
}

// posting subscribes for acknowledgements the first time.
func (c *Conn) posting() (*posts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.posts != nil {
		return c.posts, nil
	}
	p := &posts{prefix: c.nc.NewInbox() + ".", waiting: map[uint64]Posted{}}
	sub, err := c.nc.Subscribe(p.prefix+"*", p.answer)
	if err != nil {
		return nil, publishFault(p.prefix, err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil { // bounded by what was posted
		return nil, fmt.Errorf("subscribe for acknowledgements: %w", err)
	}
	c.posts = p
	return p, nil
}

func (p *posts) take(n uint64) Posted {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.waiting[n]
	delete(p.waiting, n)
	return done
}

func (p *posts) answer(m *nats.Msg) {
	n, err := strconv.ParseUint(m.Subject[len(p.prefix):], 36, 64)
	if err != nil {
		return
	}
	done := p.take(n)
	if done == nil {
		return // given up
	}
	if m.Header.Get("Status") == "503" {
		done(0, false, publishFault("", nats.ErrNoResponders))
		return
	}
	done(readAck(m.Data))
}

// readAck reads {"stream":"S","seq":7} without a JSON decoder, and everything else with one.
func readAck(data []byte) (seq uint64, duplicate bool, err error) {
	const mark = `,"seq":`
	if at := bytes.Index(data, []byte(mark)); at > 0 && bytes.HasPrefix(data, []byte(`{"stream":`)) {
		rest := data[at+len(mark):]
		end := bytes.IndexByte(rest, '}')
		if end > 0 {
			if n, err := strconv.ParseUint(string(rest[:end]), 10, 64); err == nil {
				return n, false, nil
			}
		}
	}
	var ack struct {
		Error     *jetstream.APIError `json:"error"`
		Seq       uint64              `json:"seq"`
		Duplicate bool                `json:"duplicate"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, false, &fault.Error{Code: CodeUnavailable, What: "the broker's acknowledgement cannot be read", Err: err, Fix: "see the broker's log"}
	}
	if ack.Error != nil {
		return 0, false, publishFault("", ack.Error)
	}
	return ack.Seq, ack.Duplicate, nil
}

// failPosts gives up what was sent over a connection that is gone.
func (c *Conn) failPosts() {
	c.mu.Lock()
	p := c.posts
	c.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	lost := p.waiting
	p.waiting = map[uint64]Posted{}
	p.mu.Unlock()
	for _, done := range lost {
		done(0, false, publishFault(strings.TrimSuffix(p.prefix, "."), nats.ErrDisconnected))
	}
}
