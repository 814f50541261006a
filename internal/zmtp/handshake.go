package zmtp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

const (
	greetingSize  = 64
	signatureSize = 10
	mechanismAt   = 12
	mechanismSize = 20
	asServerAt    = 32

	mechanismNull  = "NULL"
	mechanismPlain = "PLAIN"
)

// Accept shakes hands over conn, which it takes over: it is closed when Accept fails and by Conn.Close. The error wraps
// ErrProtocol or ErrDenied where the peer is to blame; a peer that can be told why is told.
func Accept(conn net.Conn, cfg Config) (*Conn, error) {
	c := &Conn{conn: conn, cfg: cfg.withDefaults(), reader: bufio.NewReaderSize(conn, readBuffer)}
	err := conn.SetDeadline(time.Now().Add(c.cfg.Handshake))
	if err == nil {
		err = c.shake()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *Conn) shake() error {
	mechanism := mechanismNull
	if c.cfg.Auth != nil {
		mechanism = mechanismPlain
	}
	if err := c.Write(greeting(mechanism)); err != nil {
		return err
	}
	if err := c.greeted(mechanism); err != nil {
		return err
	}
	if mechanism == mechanismPlain {
		return c.refused(c.plain())
	}
	if err := c.Write(c.ready()); err != nil {
		return err
	}
	name, body, err := c.nextCommand()
	if err != nil {
		return err
	}
	if name != "READY" {
		return c.refused(fmt.Errorf("%w: %q where READY should be", ErrProtocol, shorten([]byte(name))))
	}
	return c.refused(c.meet(body))
}

// greeting is this side's first 64 bytes. A listener is the server of PLAIN.
func greeting(mechanism string) []byte {
	g := make([]byte, greetingSize)
	g[0], g[signatureSize-1] = 0xff, 0x7f
	g[10], g[11] = 3, 1
	copy(g[mechanismAt:], mechanism)
	if mechanism != mechanismNull {
		g[asServerAt] = 1
	}
	return g
}

// greeted reads the peer's greeting.
func (c *Conn) greeted(mechanism string) error {
	var g [greetingSize]byte
	// The signature first: what is no ZeroMQ at all need not send 64 bytes to be told so.
	if _, err := io.ReadFull(c.reader, g[:signatureSize+1]); err != nil {
		return cut(err)
	}
	if g[0] != 0xff || g[signatureSize-1]&1 != 1 {
		return fmt.Errorf("%w: it does not begin as ZeroMQ does", ErrProtocol)
	}
	if g[signatureSize] < 3 {
		return fmt.Errorf("%w: it speaks ZMTP %d, and 3 is the oldest that is known here", ErrProtocol, g[signatureSize])
	}
	if _, err := io.ReadFull(c.reader, g[signatureSize+1:]); err != nil {
		return cut(err)
	}
	if g[signatureSize] == 3 {
		c.minor = g[signatureSize+1]
	} else {
		c.minor = 1 // a later version speaks ours
	}
	name := string(bytes.TrimRight(g[mechanismAt:mechanismAt+mechanismSize], "\x00"))
	if name != mechanism {
		return fmt.Errorf("%w: it wants the mechanism %q, and this socket has %s", ErrDenied, shorten([]byte(name)), mechanism)
	}
	return nil
}

// plain is the server's half of PLAIN.
func (c *Conn) plain() error {
	name, body, err := c.nextCommand()
	if err != nil {
		return err
	}
	user, rest, okUser := shortString(body)
	password, rest, okPassword := shortString(rest)
	if name != "HELLO" || !okUser || !okPassword || len(rest) > 0 {
		return fmt.Errorf("%w: no HELLO with a name and a password", ErrProtocol)
	}
	if !c.cfg.Auth(user, password) {
		return fmt.Errorf("%w: unknown name or wrong password", ErrDenied)
	}
	if err := c.Write(appendCommand(nil, "WELCOME", nil)); err != nil {
		return err
	}
	if name, body, err = c.nextCommand(); err != nil {
		return err
	}
	if name != "INITIATE" {
		return fmt.Errorf("%w: %q where INITIATE should be", ErrProtocol, shorten([]byte(name)))
	}
	if err := c.meet(body); err != nil {
		return err
	}
	return c.Write(c.ready())
}

// ready is this side's READY.
func (c *Conn) ready() []byte {
	return appendCommand(nil, "READY", appendProperty(nil, "Socket-Type", string(c.cfg.Type)))
}

// meet reads the peer's metadata and checks that the two socket types fit together.
func (c *Conn) meet(body []byte) error {
	found, err := properties(body)
	if err != nil {
		return err
	}
	c.peer = SocketType(found["socket-type"])
	if !slices.Contains(peersOf(c.cfg.Type), c.peer) {
		return fmt.Errorf("%w: a %q socket cannot talk to this one, which is %s", ErrProtocol, shorten([]byte(c.peer)), c.cfg.Type)
	}
	return nil
}

// refused tells the peer why it is refused, when it is, and returns err.
func (c *Conn) refused(err error) error {
	if !errors.Is(err, ErrDenied) && !errors.Is(err, ErrProtocol) {
		return err
	}
	reason := err.Error()
	reason = reason[:min(len(reason), 255)]
	_ = c.Write(appendCommand(nil, "ERROR", append([]byte{byte(len(reason))}, reason...))) // it is sent away in any case
	return err
}

// shortString cuts a string after its length of one byte off body.
func shortString(body []byte) (s string, rest []byte, ok bool) {
	if len(body) == 0 || len(body) < 1+int(body[0]) {
		return "", nil, false
	}
	return string(body[1 : 1+body[0]]), body[1+body[0]:], true
}
