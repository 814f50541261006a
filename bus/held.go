package bus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/nats-io/nats.go"
)

// held is a message that the broker has given to this process and that is not acknowledged yet.
type held struct {
	key   heldKey
	msg   *nats.Msg
	meta  *nats.MsgMetadata
	feed  *feed
	from  *puller
	size  int
	link  uint64 // the connection that it came by
	reply string // where to acknowledge; guarded by holding.mu
}

type heldKey struct {
	from *feed
	seq  uint64
}

// holding is the messages in hand. Safe for concurrent use.
type holding struct {
	mu     sync.Mutex
	frames map[heldKey]*held
}

// add notes a message. It returns nil for one that is in hand already: after a crash the broker may have forgotten that
// it gave it to us.
func (h *holding) add(p *puller, f *feed, msg *nats.Msg) (*held, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read message metadata: %w", err)
	}
	one := &held{key: heldKey{f, meta.Sequence.Stream}, msg: msg, meta: meta, feed: f, from: p, size: msg.Size(), link: p.link, reply: msg.Reply}
	h.mu.Lock()
	defer h.mu.Unlock()
	if have := h.frames[one.key]; have != nil {
		have.reply = msg.Reply
		p.release(one.size)
		return nil, nil
	}
	h.frames[one.key] = one
	return one, nil
}

// end answers a message with verb ("+ACK" or "-NAK") and lets it go. The answer may get lost with the connection; then
// the broker delivers the message again.
func (h *holding) end(c *Conn, one *held, verb string) {
	h.mu.Lock()
	delete(h.frames, one.key)
	reply := one.reply
	h.mu.Unlock()
	_ = c.nc.Publish(reply, []byte(verb))
	one.from.release(one.size)
}

// keepAlive tells the broker about every message in hand until ctx ends.
func (h *holding) keepAlive(ctx context.Context, c *Conn) {
	tick := time.NewTicker(aliveInterval)
	defer tick.Stop()
	var replies []string
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		replies = replies[:0]
		h.mu.Lock()
		for _, one := range h.frames {
			replies = append(replies, one.reply)
		}
		h.mu.Unlock()
		for _, reply := range replies {
			_ = c.nc.Publish(reply, []byte("+WPI")) // a lost one is made up for by the next
		}
	}
}

// blockage tells once that storing output is held up, and once that it goes on. Safe for concurrent use.
type blockage struct {
	log *slog.Logger

	mu   sync.Mutex
	n    int // workers that are held up
	code string
}

// set notes that a worker is held up by err; the worker calls clear when it goes on.
func (b *blockage) set(err error, again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !again {
		b.n++
	}
	if code := fault.Code(err); code != b.code {
		b.code = code
		b.log.Warn("stage is held up: frames are kept and tried again", "code", code, "error", err)
	}
}

func (b *blockage) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n--; b.n == 0 {
		b.code = ""
		b.log.Info("stage goes on")
	}
}
