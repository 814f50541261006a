package builtin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/zmtp"
)

const (
	// fanSubscriptions and fanPrefix bound what one peer may have us remember and compare for each event.
	fanSubscriptions = 1000
	fanPrefix        = 1 << 10
)

// zmqFan gives the events of a stream, or live ones, to every SUB peer that subscribes to them, each as a message of the event's
// subject and the event. As a PUB socket does, it waits for nobody: what finds a peer at its high-water mark is dropped
// for that peer and counted, and events that nobody subscribes to are gone.
type zmqFan struct {
	*zmqDoor
	conn      *bus.Conn
	source    runner // a Stage, or for live events a Watcher
	hwm       int
	multipart bool

	mu    sync.RWMutex
	peers []*fanPeer
}

type fanPeer struct {
	*zmqPeer
	prefixes map[string]int // how often it has subscribed to each; guarded by zmqFan.mu
}

func newZMQFan(conn *bus.Conn, z manifest.ZMQSocket, door *zmqDoor) (*zmqFan, error) {
	f := &zmqFan{zmqDoor: door, conn: conn, hwm: z.HWM, multipart: z.Multipart}
	topic := bus.NewTopic[[]byte](strings.TrimSuffix(z.Pub, ".>"))
	if slices.Contains(conn.Grant().Watches, z.Pub) {
		f.source = topic.Watch(conn, f.fan, bus.WatchConfig{Drain: turnsDrain})
		return f, nil
	}
	// One worker, so that peers see the stream's order.
	stage, err := bus.NewStage(conn, topic, func(ctx context.Context, e bus.Event[[]byte], _ *bus.Out) error {
		return f.fan(ctx, e)
	}, bus.StageConfig{Workers: 1, Drain: turnsDrain})
	f.source = stage
	return f, err
}

// Run gives events to peers until ctx ends.
func (f *zmqFan) Run(ctx context.Context) error {
	return runZMQSource(ctx, f.source, f.zmqDoor, f.give)
}

func (f *zmqFan) fan(ctx context.Context, e bus.Event[[]byte]) error {
	parts, err := messageOf(e.Data, f.multipart)
	if err != nil {
		return bus.Reject("zmq/no-parts", err)
	}
	parts = slices.Insert(parts, 0, []byte(e.Subject))
	encode := func(dst []byte) []byte { return zmtp.AppendMessage(dst, parts...) }
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, p := range f.peers {
		if p.wants(e.Subject) && !p.offer(encode, nil) {
			f.conn.Counters().Dropped.Add(1)
			f.complain(ctx, "a subscriber is too slow: messages are dropped for it", nil)
		}
	}
	return nil
}

func (p *fanPeer) wants(subject string) bool {
	for prefix := range p.prefixes {
		if strings.HasPrefix(subject, prefix) {
			return true
		}
	}
	return false
}

// give serves one peer.
func (f *zmqFan) give(ctx context.Context, conn *zmtp.Conn) error {
	p := &fanPeer{newZMQPeer(conn, f.hwm, func() {}, func(any, bool) {}), map[string]int{}}
	f.mu.Lock()
	f.peers = append(f.peers, p)
	f.mu.Unlock()
	return servePeer(ctx, p.zmqPeer, func(s *zmtp.Subscription) error { return f.subscribe(p, s) }, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.peers = slices.DeleteFunc(f.peers, func(other *fanPeer) bool { return other == p })
	})
}

func (f *zmqFan) subscribe(p *fanPeer, s *zmtp.Subscription) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Cancel {
		if p.prefixes[s.Prefix]--; p.prefixes[s.Prefix] <= 0 {
			delete(p.prefixes, s.Prefix)
		}
		return nil
	}
	if len(s.Prefix) > fanPrefix || p.prefixes[s.Prefix] == 0 && len(p.prefixes) >= fanSubscriptions {
		return errors.New("it subscribes to too much")
	}
	p.prefixes[s.Prefix]++
	return nil
}
