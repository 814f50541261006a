package task

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
)

const (
	pullExpiry    = 30 * time.Second // how long the broker keeps a request for tasks that are not there
	pullHeartbeat = 5 * time.Second  // how often it says that it still knows of the request
	pullSilence   = 12 * time.Second // after which it is asked anew

	// mostFrames bounds the frames that a worker has on the way.
	mostFrames = 64

	// mostAhead bounds the tasks that a lane has on the way beside those that are worked on.
	mostAhead = 2048

	// laneChannel holds all that can be on the way: two windows, when a request is given up while its answers still
	// travel, and status messages.
	laneChannel = 2*(mostAhead+maxConcurrency) + 64
)

// lane brings the messages of one consumer: tasks of one kind and priority, or frames of them.
type lane struct {
	conn    *bus.Conn
	request string // subject of requests
	msgs    chan *nats.Msg

	credit atomic.Int64  // messages that the open requests may still bring
	count  atomic.Uint64 // messages that came

	mu      sync.Mutex
	sub     *nats.Subscription
	inbox   string
	number  int
	heard   time.Time
	closed  bool
	seen    uint64 // count at heard
	trouble string // last word of the broker about a request, until one works
}

func newLane(c *bus.Conn, queue, durable string) *lane {
	return &lane{
		conn: c, msgs: make(chan *nats.Msg, laneChannel),
		request: fmt.Sprintf("$JS.API.CONSUMER.MSG.NEXT.%s.%s", wire.StreamName(wire.QueueStream(queue)), durable),
	}
}

type pullRequest struct {
	Batch     int64 `json:"batch"`
	Expires   int64 `json:"expires"`        // ns
	Heartbeat int64 `json:"idle_heartbeat"` // ns
}

// fill asks for tasks until room of them are waiting here or on their way, if that is worth a request.
func (l *lane) fill(room int64) {
	have := l.credit.Load() + int64(len(l.msgs))
	if want := room - have; want < 1 || (have > 0 && want < room/4) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	want := room - l.credit.Load() - int64(len(l.msgs))
	if want < 1 || l.closed {
		return
	}
	if l.sub == nil {
		l.inbox = l.conn.NATS().NewInbox()
		sub, err := l.conn.NATS().ChanSubscribe(l.inbox+".*", l.msgs)
		if err != nil {
			return // the connection is closed for good
		}
		l.sub = sub
	}
	body, err := json.Marshal(pullRequest{want, int64(pullExpiry), int64(pullHeartbeat)})
	if err != nil {
		return // numbers alone
	}
	l.number++
	if l.conn.NATS().PublishRequest(l.request, l.inbox+"."+strconv.Itoa(l.number), body) != nil {
		return // disconnected: the keeper asks again
	}
	if l.credit.Load() == 0 {
		l.heard = time.Now()
	}
	l.credit.Add(want)
}

// take returns a message that is here already, or nil.
func (l *lane) take() *nats.Msg {
	for {
		select {
		case m := <-l.msgs:
			if l.isTask(m) {
				return m
			}
		default:
			return nil
		}
	}
}

// isTask takes a message that has come and reports whether it is a task.
func (l *lane) isTask(m *nats.Msg) bool {
	if m.Reply != "" {
		l.count.Add(1)
		if l.credit.Add(-1) < 0 {
			l.credit.Store(0) // the answer to a request that was given up
		}
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
	status, word := m.Header.Get("Status"), m.Header.Get("Description")
	if status == "100" {
		l.trouble = ""
		return false
	}
	if pending, err := strconv.ParseInt(m.Header.Get("Nats-Pending-Messages"), 10, 64); err == nil {
		if l.credit.Add(-pending) < 0 {
			l.credit.Store(0)
		}
	} else {
		l.credit.Store(0)
	}
	if status != "404" && status != "408" && !strings.EqualFold(word, "Batch Completed") {
		l.trouble = strings.TrimSpace(status + " " + word)
	}
	return false
}

// heed gives requests up that the broker seems to have forgotten. It returns what the broker has said against them.
func (l *lane) heed(now time.Time) (trouble string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.count.Load(); n != l.seen {
		l.seen, l.heard = n, now // while tasks come the broker need not say that it is there
	}
	if l.credit.Load() > 0 && len(l.msgs) == 0 && now.Sub(l.heard) > pullSilence {
		l.credit.Store(0)
		l.heard = now
	}
	trouble, l.trouble = l.trouble, ""
	return trouble
}

// renew forgets all requests, because the connection is a new one.
func (l *lane) renew() { l.credit.Store(0) }

// giveBack returns the tasks that wait here to the broker.
func (l *lane) giveBack() {
	l.empty(func(m *nats.Msg) {
		_ = l.conn.NATS().Publish(m.Reply, refused) // when it is lost, the broker gives the task away after ackWait
	})
}

// drop forgets the tasks that wait here. The broker gives them away after ackWait.
func (l *lane) drop() { l.empty(func(*nats.Msg) {}) }

func (l *lane) empty(each func(*nats.Msg)) {
	for m := l.take(); m != nil; m = l.take() {
		each(m)
	}
}

var refused = []byte("-NAK")

// close takes no more tasks and gives back those that were not begun, unless they are outdated: others may have them.
func (l *lane) close(outdated bool) {
	l.mu.Lock()
	l.closed = true
	sub := l.sub
	l.mu.Unlock()
	if sub == nil {
		return
	}
	if l.conn.Connected() && sub.Drain() == nil {
		// A draining subscription still takes what the broker has sent before it heard of the end, and the flush returns
		// behind all of that.
		_ = l.conn.NATS().FlushTimeout(time.Second) // what does not come in time is delivered again
	}
	if outdated {
		l.drop()
	} else {
		l.giveBack()
	}
	_ = sub.Unsubscribe() // it fails when it has drained, or the connection is closed
}
