package builtin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/zmtp"
)

// zmqMaxPeers bounds the peers of one socket: each may hold a read buffer of 64 KiB and a message.
const zmqMaxPeers = 1024

// zmqDoor lets peers in at one listener.
type zmqDoor struct {
	listener net.Listener
	cfg      zmtp.Config
	log      *slog.Logger
	linger   time.Duration // how long writes to peers may take after the stop
	ready    chan struct{}
	said     seldom
}

// Ready is closed when peers are let in.
func (d *zmqDoor) Ready() <-chan struct{} { return d.ready }

// serve lets peers in until ctx ends and has each served; it returns when all have been. A peer's context ends with ctx,
// and its reads fail from then on.
func (d *zmqDoor) serve(ctx context.Context, serve func(ctx context.Context, peer *zmtp.Conn) error) error {
	defer d.listener.Close()
	unblock := context.AfterFunc(ctx, func() { d.listener.Close() })
	defer unblock()
	var peers sync.WaitGroup
	defer peers.Wait()
	places := make(chan struct{}, zmqMaxPeers) // one token a peer
	close(d.ready)
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			d.complain(ctx, "cannot accept", err) // out of descriptors: others will be given back
			pause(ctx, 100*time.Millisecond)
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			d.complain(ctx, "too many peers", nil)
			_ = conn.Close() // it is sent away
			continue
		}
		peers.Go(func() {
			defer func() { <-places }()
			d.meet(ctx, conn, serve)
		})
	}
}

// meet shakes hands with a peer and has it served.
func (d *zmqDoor) meet(ctx context.Context, conn net.Conn, serve func(ctx context.Context, peer *zmtp.Conn) error) {
	interrupt := context.AfterFunc(ctx, func() {
		now := time.Now()
		_ = conn.SetReadDeadline(now) // a closed one needs none
		_ = conn.SetWriteDeadline(now.Add(d.linger))
	})
	defer interrupt()
	peer, err := zmtp.Accept(conn, d.cfg)
	if err == nil {
		if ctx.Err() == nil {
			err = serve(ctx, peer)
		}
		_ = peer.Close() // what matters has been written
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		d.complain(ctx, "peer sent away", err, "peer", conn.RemoteAddr().String())
	}
}

// complain logs, but not so often that peers could fill a disk.
func (d *zmqDoor) complain(ctx context.Context, message string, err error, more ...any) {
	if now, left := d.said.pass(message); now {
		if err != nil {
			more = append(more, "error", err)
		}
		d.log.WarnContext(ctx, message, append(more, "more_not_logged", left)...)
	}
}

// seldom lets one of each message through in ten seconds and counts the others. The zero seldom is ready; it is safe for
// concurrent use. The messages are few, being constants.
type seldom struct {
	mu   sync.Mutex
	last map[string]time.Time
	left map[string]int
}

const seldomInterval = 10 * time.Second

func (s *seldom) pass(message string) (now bool, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last, s.left = map[string]time.Time{}, map[string]int{}
	}
	if time.Since(s.last[message]) < seldomInterval {
		s.left[message]++
		return false, 0
	}
	left = s.left[message]
	s.last[message], s.left[message] = time.Now(), 0
	return true, left
}
