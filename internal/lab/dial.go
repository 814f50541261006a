//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects from the controller's place in the lab. Any goroutine may call it.
func (l *Lab) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	var conn net.Conn
	err := l.within(func() (err error) {
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// within calls f on a thread that is in the lab's network. A socket stays where it was made.
func (l *Lab) within(f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = own.Close() }() // only read
	other, err := os.Open(l.network())
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = other.Close() }() // only read
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the lab's network: %w", err)
	}
	defer func() {
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // a thread that cannot go home ends with its goroutine
		}
	}()
	return f()
}

// Relay makes the way to a host longer: it returns an address, on the controller's loopback, from which everything
// reaches the host's sshd after delay, and everything comes back after delay as well. It ends with the lab.
func (l *Lab) Relay(h *Host, delay time.Duration) (string, error) {
	var listener net.Listener
	err := l.within(func() (err error) {
		var lc net.ListenConfig
		listener, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return "", err
	}
	r := &relay{lab: l, to: h.Addr + ":22", delay: delay, listener: listener}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.running.Go(r.accept)
	l.relaying = append(l.relaying, r)
	return listener.Addr().String(), nil
}

type relay struct {
	lab      *Lab
	to       string
	delay    time.Duration
	listener net.Listener
	ctx      context.Context //nolint:containedctx // it is the relay's own life, ended by Close
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

func (r *relay) Close() error {
	r.cancel()
	err := r.listener.Close()
	r.running.Wait()
	return err
}

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		r.running.Go(func() {
			defer func() { _ = near.Close() }() // both ends are being given up
			far, err := r.lab.Dial(r.ctx, "tcp", r.to)
			if err != nil {
				return
			}
			defer func() { _ = far.Close() }()
			stop := context.AfterFunc(r.ctx, func() { _, _ = near.Close(), far.Close() })
			defer stop()
			var both sync.WaitGroup
			both.Go(func() { r.carry(far, near) })
			both.Go(func() { r.carry(near, far) })
			both.Wait()
		})
	}
}

type parcel struct {
	due  time.Time
	data []byte
}

// carry moves bytes one way. What is on the way is bounded: 1024 parcels of at most 32 KiB.
func (r *relay) carry(to io.Writer, from io.Reader) {
	way := make(chan parcel, 1024)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(way)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				way <- parcel{time.Now().Add(r.delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	})
	broken := false
	for p := range way {
		if broken {
			continue // read on, so that the reader can end
		}
		select {
		case <-time.After(time.Until(p.due)):
		case <-r.ctx.Done():
		}
		_, err := to.Write(p.data)
		broken = err != nil
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other end may be gone
	}
	reading.Wait()
}
