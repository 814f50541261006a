package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pullExpires is how long the broker keeps a request that it cannot fill; then it is made anew.
	pullExpires = 30 * time.Second

	// pullHeartbeat is how often the broker says that it still knows of an idle request. Without a sign for
	// pullSilence the request is given up and made anew.
	pullHeartbeat = 2 * time.Second
	pullSilence   = 5 * time.Second

	// pullTick is the grain of waiting: for silence, and for trying again after a refusal.
	pullTick = 200 * time.Millisecond

	// maxWindow is the most messages that a puller has in hand or on the way: at one event a frame and 5 µs each that
	// is 2.5 ms of work, many round trips on one host.
	maxWindow = 512

	// pullChannel holds every message that can be on the way at once: a full window of each of two requests, the
	// second made after the first was given up while its answers still travel, and status messages.
	pullChannel = 2*maxWindow + 64
)

// errBroken says that messages may have been lost on their way to this process since the last one.
var errBroken = errors.New("the flow of messages was interrupted")

// puller asks a JetStream pull consumer for messages, one request at a time, each for as many bytes and messages as
// there is room for. nats.go's own iterator counts only what it buffers, not what workers hold; this one counts until
// release. next is for one goroutine, release for any.
type puller struct {
	conn    *Conn
	log     *slog.Logger
	subject string     // of requests
	power   bool       // what came by one connection is not taken by the next
	strict  bool       // next returns errBroken instead of mending the flow silently
	got     uint64     // when strict: the consumer sequence of the last message that came
	bytes   int        // most bytes in hand or on the way
	window  func() int // most messages in hand or on the way, 1 to maxWindow

	msgs       chan *nats.Msg
	sub        *nats.Subscription
	inbox      string
	reconnects uint64
	link       uint64 // see Conn.Link: from before the subscription was made
	changed    <-chan struct{}
	tick       *time.Ticker

	request  int  // number of the last request
	open     bool // it is not used up
	left     int  // messages that it may still bring
	heard    time.Time
	refused  int // in a row
	notUntil time.Time
	lastWord string // last refusal told in the log

	heldMsgs  atomic.Int64
	heldBytes atomic.Int64
	released  chan struct{} // capacity 1: a hint that there is room
}

// newPuller makes a puller of the durable consumer of a stream, both by their JetStream names.
func newPuller(c *Conn, stream, durable string, bytes int, window func() int) *puller {
	return &puller{
		conn: c, log: c.log.With("stream", stream, "durable", durable),
		subject: fmt.Sprintf("$JS.API.CONSUMER.MSG.NEXT.%s.%s", stream, durable),
		bytes:   max(bytes, 2*minPullBytes(c)), window: window,
		msgs:     make(chan *nats.Msg, pullChannel),
		tick:     time.NewTicker(pullTick),
		released: make(chan struct{}, 1),
	}
}

// minPullBytes is room for the largest message that can be stored, its subjects and headers included: a request for
// less could be refused for ever.
func minPullBytes(c *Conn) int { return int(c.nc.MaxPayload()) + 8<<10 }

// next returns the next message, or an error once ctx ends. The caller must release its size when done with it.
func (p *puller) next(ctx context.Context) (*nats.Msg, error) {
	for {
		if err := p.prepare(); err != nil {
			return nil, err
		}
		select {
		case m := <-p.msgs:
			data, err := p.take(m)
			if err != nil {
				return nil, err
			}
			if data {
				return m, nil
			}
		case <-p.released:
		case <-p.changed:
			if err := p.reset(); err != nil {
				return nil, err
			}
		case <-p.tick.C:
			if p.open && time.Since(p.heard) > pullSilence {
				if err := p.reset(); err != nil {
					return nil, err
				}
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// release gives back the room of one message of size bytes.
func (p *puller) release(size int) {
	p.heldMsgs.Add(-1)
	p.heldBytes.Add(-int64(size))
	select {
	case p.released <- struct{}{}:
	default:
	}
}

// prepare subscribes if need be and makes a request when none is open and there is room for half a window.
func (p *puller) prepare() error {
	if p.sub == nil {
		p.reconnects, p.changed = p.conn.link()
		p.link = p.conn.Link()
		p.inbox = p.conn.nc.NewInbox()
		sub, err := p.conn.nc.ChanSubscribe(p.inbox+".*", p.msgs)
		if err != nil {
			return fmt.Errorf("subscribe for pulled messages: %w", err) // the connection is closed for good
		}
		p.sub = sub
	}
	if p.open || time.Now().Before(p.notUntil) {
		return nil
	}
	window := min(max(p.window(), 1), maxWindow)
	msgs := window - int(p.heldMsgs.Load())
	bytes := p.bytes - int(p.heldBytes.Load())
	if msgs < (window+1)/2 || bytes < minPullBytes(p.conn) {
		return nil
	}
	body, err := json.Marshal(pullRequest{msgs, bytes, int64(pullExpires), int64(pullHeartbeat)})
	if err != nil {
		return fmt.Errorf("encode pull request: %w", err)
	}
	p.request++
	if err := p.conn.nc.PublishRequest(p.subject, p.inbox+"."+strconv.Itoa(p.request), body); err != nil {
		p.refuse("request not sent: " + err.Error()) // disconnected; the reconnect wakes next
		return nil
	}
	p.open, p.left, p.heard = true, msgs, time.Now()
	return nil
}

type pullRequest struct {
	Batch     int   `json:"batch"`
	MaxBytes  int   `json:"max_bytes"`
	Expires   int64 `json:"expires"`        // ns
	Heartbeat int64 `json:"idle_heartbeat"` // ns
}

// take handles what came in on the subscription and reports whether it is a message of the stream.
func (p *puller) take(m *nats.Msg) (data bool, err error) {
	if m.Reply != "" {
		p.heard = time.Now()
		p.refused, p.lastWord = 0, ""
		p.got++
		if p.left--; p.left <= 0 {
			p.open = false
		}
		p.heldMsgs.Add(1)
		p.heldBytes.Add(int64(m.Size()))
		return true, nil
	}
	if m.Subject != p.inbox+"."+strconv.Itoa(p.request) {
		return false, nil // about a request that is over
	}
	p.heard = time.Now()
	status, word := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
	case status == "100": // heartbeat
		p.refused, p.lastWord = 0, ""
		if p.strict && p.strayed(m) {
			return false, errBroken
		}
		return false, nil
	case status == "404", status == "408", // nothing came for as long as we asked
		status == "409" && (strings.EqualFold(word, "Message Size Exceeds MaxBytes") || strings.EqualFold(word, "Batch Completed")):
		p.open = false
		return false, nil
	}
	if status == "503" {
		word = "the consumer does not exist"
	}
	p.open = false
	p.refuse(word)
	if p.strict {
		return false, errBroken
	}
	return false, nil
}

// strayed reports whether the broker has delivered more than came here. What it sent before a heartbeat comes before it,
// so another reader of the consumer has the rest; on a quiet stream no later message would ever show that.
func (p *puller) strayed(heartbeat *nats.Msg) bool {
	last, err := strconv.ParseUint(heartbeat.Header.Get("Nats-Last-Consumer"), 10, 64)
	return err == nil && last > p.got
}

// refuse puts off the next request, longer each time, and tells why once.
func (p *puller) refuse(word string) {
	p.notUntil = time.Now().Add(min(pullTick<<min(p.refused, 4), time.Second))
	p.refused++
	if word != p.lastWord && p.conn.nc.IsConnected() {
		p.lastWord = word
		p.log.Warn("the broker refuses a pull", "reason", word)
	}
}

// reset starts over with a new inbox: answers to the request before, if any still come, are taken all the same.
func (p *puller) reset() error {
	p.unsubscribe()
	p.open = false
	if p.strict {
		return errBroken
	}
	if p.power {
		p.giveBack()
	}
	return nil
}

// giveBack refuses what has come and was not taken yet.
func (p *puller) giveBack() {
	for {
		select {
		case m := <-p.msgs:
			if m.Reply != "" {
				_ = p.conn.nc.Publish(m.Reply, []byte("-NAK")) // a lost one is made up for by the acknowledgement wait
			}
		default:
			return
		}
	}
}

func (p *puller) unsubscribe() {
	if p.sub != nil {
		_ = p.sub.Unsubscribe() // it fails only when the connection is closed, and the subscription with it
		p.sub = nil
	}
}

// abandon ends the open request and forgets what is on the way.
func (p *puller) abandon() {
	p.tick.Stop()
	p.unsubscribe()
}

// close ends the open request and returns the messages that were on the way, which the caller gives back.
func (p *puller) close(ctx context.Context) []*nats.Msg {
	p.tick.Stop()
	if p.sub != nil && p.conn.nc.IsConnected() {
		// A draining subscription still takes what the broker has sent before it heard of the end, and the flush
		// returns behind all of that.
		if err := p.sub.Drain(); err == nil {
			flush, cancel := context.WithTimeout(ctx, time.Second)
			_ = p.conn.nc.FlushWithContext(flush) // what does not come in time is delivered again by the broker
			cancel()
		}
	}
	var rest []*nats.Msg
	for {
		select {
		case m := <-p.msgs:
			if m.Reply != "" {
				p.heldMsgs.Add(1)
				p.heldBytes.Add(int64(m.Size()))
				rest = append(rest, m)
			}
		default:
			p.unsubscribe()
			return rest
		}
	}
}
