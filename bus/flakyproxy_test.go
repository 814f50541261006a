package bus_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// cutter is a TCP proxy whose connections can be cut.
type cutter struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns []net.Conn
	off   bool
	wg    sync.WaitGroup
}

func newCutter(t testing.TB, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, target: strings.TrimPrefix(target, "nats://")}
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		_ = l.Close()
		c.cut(true)
		c.wg.Wait()
	})
	return c
}

func (c *cutter) url() string { return "nats://" + c.listener.Addr().String() }

func (c *cutter) accept() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, in, out)
		off := c.off
		c.mu.Unlock()
		if off {
			_ = in.Close()
			_ = out.Close()
		}
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			c.wg.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
				_ = pair[1].Close()
			})
		}
	}
}

// cut cuts every connection; while off, new ones are cut at once.
func (c *cutter) cut(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func dialThrough(t testing.TB, c *cutter, g wire.Grant) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(testkit.Context(t), bus.Config{URL: c.url(), Grant: g, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		_ = conn.Close(ctx) // it may be cut off
	})
	return conn
}
