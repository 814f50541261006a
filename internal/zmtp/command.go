package zmtp

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// Subscription is a peer's wish to get, or no longer get, what begins with Prefix.
type Subscription struct {
	Prefix string
	Cancel bool
}

// maxPingContext is the specification's limit for what a PONG must repeat.
const maxPingContext = 16

// command reads a command's body and acts on it. It returns a subscription when it is one.
func (c *Conn) command(size int) (*Subscription, error) {
	name, body, err := c.readCommand(size)
	if err != nil {
		return nil, err
	}
	switch name {
	case "SUBSCRIBE":
		return &Subscription{Prefix: string(body)}, nil
	case "CANCEL":
		return &Subscription{Prefix: string(body), Cancel: true}, nil
	case "PING":
		if len(body) < 2 || len(body) > 2+maxPingContext {
			return nil, fmt.Errorf("%w: a PING of %d bytes", ErrProtocol, len(body))
		}
		// The two bytes are how long the peer wants to be waited for; TCP's own keep-alive finds it when it is gone.
		return nil, c.Write(appendCommand(nil, "PONG", body[2:]))
	case "ERROR":
		return nil, fmt.Errorf("%w: it sends ERROR %q", ErrProtocol, shorten(body))
	}
	return nil, nil // PONG, and what later versions have
}

// readCommand reads a command's body of size bytes.
func (c *Conn) readCommand(size int) (name string, body []byte, err error) {
	raw := make([]byte, size) // at most maxCommand
	if _, err := io.ReadFull(c.reader, raw); err != nil {
		return "", nil, cut(err)
	}
	if len(raw) == 0 || raw[0] == 0 || len(raw) < 1+int(raw[0]) {
		return "", nil, fmt.Errorf("%w: a command without a name", ErrProtocol)
	}
	return string(raw[1 : 1+raw[0]]), raw[1+raw[0]:], nil
}

// nextCommand reads a frame that must be a command, during the handshake.
func (c *Conn) nextCommand() (name string, body []byte, err error) {
	f, err := c.head(0)
	if err != nil {
		return "", nil, cut(err)
	}
	if f.flags&flagCommand == 0 {
		return "", nil, fmt.Errorf("%w: a message before the end of the handshake", ErrProtocol)
	}
	return c.readCommand(f.size)
}

func appendCommand(dst []byte, name string, body []byte) []byte {
	dst = appendHead(dst, flagCommand, 1+len(name)+len(body))
	dst = append(append(dst, byte(len(name))), name...)
	return append(dst, body...)
}

// AsSubscription returns the subscription that a message is in ZMTP 3.0, where it has no command of its own, or nil.
func (m *Message) AsSubscription() *Subscription {
	if m.Len() != 1 || m.Size() == 0 || m.data[0] > 1 {
		return nil
	}
	return &Subscription{Prefix: string(m.data[1:]), Cancel: m.data[0] == 0}
}

// Subscribe asks a PUB peer for everything that begins with prefix.
func (c *Conn) Subscribe(prefix string) error {
	if c.minor == 0 {
		return c.Write(AppendMessage(nil, append([]byte{1}, prefix...)))
	}
	return c.Write(appendCommand(nil, "SUBSCRIBE", []byte(prefix)))
}

// properties reads the metadata of READY and INITIATE.
func properties(body []byte) (map[string]string, error) {
	all := map[string]string{}
	for len(body) > 0 {
		n := int(body[0])
		if n == 0 || len(body) < 1+n+4 {
			return nil, fmt.Errorf("%w: a property without a name or value", ErrProtocol)
		}
		name, rest := body[1:1+n], body[1+n:]
		size := uint64(rest[0])<<24 | uint64(rest[1])<<16 | uint64(rest[2])<<8 | uint64(rest[3])
		if rest = rest[4:]; size > uint64(len(rest)) {
			return nil, fmt.Errorf("%w: the property %q is cut off", ErrProtocol, shorten(name))
		}
		// Names differ by more than case: the specification compares them without it.
		all[string(bytes.ToLower(name))] = string(rest[:size])
		body = rest[size:]
	}
	return all, nil
}

func appendProperty(dst []byte, name, value string) []byte {
	dst = append(append(dst, byte(len(name))), name...)
	n := len(value)
	dst = append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return append(dst, value...)
}

// shorten makes a peer's bytes fit for a log.
func shorten(b []byte) string {
	const most = 64
	return string(slices.Clone(b[:min(len(b), most)]))
}
