package web

import (
	"io"
	"net"
	"sync"
)

// limitListener accepts at most a number of connections at once and knows those that are open, also the ones that a
// handler has hijacked and net/http no longer tracks.
type limitListener struct {
	net.Listener
	slots  chan struct{} // capacity: the most connections at once; one token a connection
	closed chan struct{}
	once   sync.Once
	conns  flight // open connections

	mu   sync.Mutex
	open map[*conn]struct{}
}

func newLimitListener(ln net.Listener, most int) *limitListener {
	return &limitListener{
		Listener: ln, slots: make(chan struct{}, most),
		closed: make(chan struct{}), open: make(map[*conn]struct{}),
	}
}

// Accept waits for a free slot first: what comes beyond stays in the kernel's queue.
func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	inner, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	c := &conn{Conn: inner, from: l}
	l.conns.begin()
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.mu.Unlock()
	return c, nil
}

// Close stops accepting. Open connections stay.
func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// closeAll closes every connection that is still open and says how many there were.
func (l *limitListener) closeAll() int {
	l.mu.Lock()
	conns := make([]*conn, 0, len(l.open))
	for c := range l.open {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // cut on purpose
	}
	return len(conns)
}

// conn gives its slot back when it is closed.
type conn struct {
	net.Conn
	from *limitListener
	once sync.Once
}

// ReadFrom keeps sendfile reachable for net/http, which looks for io.ReaderFrom.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// CloseWrite lets net/http end a refusal such as 431 so that the client can read it.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.from.mu.Lock()
		delete(c.from.open, c)
		c.from.mu.Unlock()
		<-c.from.slots
		c.from.conns.end()
	})
	return err
}
