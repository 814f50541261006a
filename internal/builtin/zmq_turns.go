package builtin

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/zmtp"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// turnsWorkers is how many frames are in hand at once, and peerFrames of how many messages may wait for one peer. A
	// frame is acknowledged when all its messages are written: sixteen peers that read nothing would hold up the others.
	turnsWorkers = 64
	peerFrames   = 4

	// turnsDrain is short: what no peer has taken yet goes back to the broker.
	turnsDrain = 2 * time.Second

	forever = time.Duration(math.MaxInt64)
)

// zmqTurns gives the events of a stream to PULL peers, in turn to those that have room. A frame of events is
// acknowledged when the last of them is written to a socket; what is lost behind that, in a peer that dies, is lost.
type zmqTurns struct {
	*zmqDoor
	stage     *bus.Stage
	hwm       int
	multipart bool

	order  frameOrder
	mu     sync.Mutex
	peers  []*turnPeer
	next   int
	room   chan struct{} // closed, and made anew, when a peer takes messages again
	frames map[frameName]*frameMark
}

// turnPeer is a peer and the frames of which messages wait for it; frames is guarded by zmqTurns.mu.
type turnPeer struct {
	*zmqPeer
	frames map[*frameMark]int
}

// turnMark is what zmqPeer keeps beside a message.
type turnMark struct {
	peer  *turnPeer
	frame *frameMark
}

// frameMark counts the messages of a frame that are on their way.
type frameMark struct {
	left   int
	failed bool
	done   chan struct{} // made by who waits
}

func newZMQTurns(conn *bus.Conn, z manifest.ZMQSocket, door *zmqDoor) (*zmqTurns, error) {
	t := &zmqTurns{zmqDoor: door, hwm: z.HWM, multipart: z.Multipart, room: make(chan struct{}), frames: make(map[frameName]*frameMark)}
	var err error
	t.stage, err = bus.NewStage(conn, bus.NewTopic[[]byte](strings.TrimSuffix(z.Push, ".>")), t.handle, bus.StageConfig{
		Workers: turnsWorkers, Drain: turnsDrain, Settle: t.settle,
		// Waiting for a peer is no failure, however long it takes.
		Timeout: forever, Attempts: math.MaxInt,
	})
	return t, err
}

// Run gives events to peers until ctx ends.
func (t *zmqTurns) Run(ctx context.Context) error {
	return runZMQSource(ctx, t.stage, t.zmqDoor, t.give)
}

// runner is where a socket's events come from.
type runner interface {
	Run(ctx context.Context) error
}

// runZMQSource serves peers for as long as source runs, so that what it has in hand can still be written.
func runZMQSource(ctx context.Context, source runner, door *zmqDoor, serve func(context.Context, *zmtp.Conn) error) error {
	peersCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	var group sync.WaitGroup
	var served error
	group.Go(func() {
		served = door.serve(peersCtx, serve)
		fail()
	})
	err := source.Run(ctx)
	stop()
	group.Wait()
	return errors.Join(err, served)
}

// handle gives one event to the next peer that has room.
func (t *zmqTurns) handle(ctx context.Context, e bus.Event[[]byte], _ *bus.Out) error {
	parts, err := messageOf(e.Data, t.multipart)
	if err != nil {
		return bus.Reject("zmq/no-parts", err)
	}
	encode := func(dst []byte) []byte { return zmtp.AppendMessage(dst, parts...) }
	name := frameName{e.ID.Stream, e.ID.Seq}
	if err := t.order.enter(ctx, name); err != nil {
		return err
	}
	for {
		given, room := t.offer(name, encode)
		if given {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// offer tries the peers in turn. When none takes the message, room is closed when that may have changed.
func (t *zmqTurns) offer(name frameName, encode func([]byte) []byte) (given bool, room <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mark := t.frames[name]
	if mark == nil {
		mark = &frameMark{}
		t.frames[name] = mark
	}
	for range t.peers {
		t.next = (t.next + 1) % len(t.peers)
		p := t.peers[t.next]
		if p.frames[mark] == 0 && len(p.frames) >= peerFrames {
			continue
		}
		if p.offer(encode, turnMark{p, mark}) { // it cannot land before the lock is released
			mark.left++
			p.frames[mark]++
			return true, nil
		}
	}
	return false, t.room
}

// landed notes that a message was written, or never will be.
func (t *zmqTurns) landed(mark any, written bool) {
	p, m := mark.(turnMark).peer, mark.(turnMark).frame
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.frames[m]--; p.frames[m] == 0 {
		delete(p.frames, m)
		t.roomyLocked()
	}
	m.left--
	m.failed = m.failed || !written
	if m.left == 0 && m.done != nil {
		close(m.done)
		m.done = nil
	}
}

// settle waits until a frame's messages are written. Those of a peer that went away come again, with the whole frame.
func (t *zmqTurns) settle(ctx context.Context, first wire.EventID) error {
	name := frameName{first.Stream, first.Seq}
	t.order.leave(name)
	t.mu.Lock()
	mark := t.frames[name]
	delete(t.frames, name)
	if mark == nil {
		t.mu.Unlock()
		return nil // every event was parked
	}
	done := make(chan struct{})
	if mark.left == 0 {
		close(done)
	} else {
		mark.done = done
	}
	t.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if mark.failed {
		return errors.New("a peer went away before everything was written to it")
	}
	return nil
}

func (t *zmqTurns) roomy() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roomyLocked()
}

func (t *zmqTurns) roomyLocked() {
	close(t.room)
	t.room = make(chan struct{})
}

// give serves one peer.
func (t *zmqTurns) give(ctx context.Context, conn *zmtp.Conn) error {
	p := &turnPeer{newZMQPeer(conn, t.hwm, t.roomy, t.landed), map[*frameMark]int{}}
	t.mu.Lock()
	t.peers = append(t.peers, p)
	t.mu.Unlock()
	t.roomy()
	return servePeer(ctx, p.zmqPeer, func(*zmtp.Subscription) error { return nil }, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.peers = slices.DeleteFunc(t.peers, func(other *turnPeer) bool { return other == p })
	})
}
