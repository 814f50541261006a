package zmtp

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// SocketType is one of ZeroMQ's.
type SocketType string

// The types that have a use here.
const (
	Pull   SocketType = "PULL"
	Push   SocketType = "PUSH"
	Pub    SocketType = "PUB"
	XPub   SocketType = "XPUB"
	Sub    SocketType = "SUB"
	XSub   SocketType = "XSUB"
	Req    SocketType = "REQ"
	Rep    SocketType = "REP"
	Dealer SocketType = "DEALER"
)

// peersOf lists the types that may talk to a listener's type, by the specification.
func peersOf(own SocketType) []SocketType {
	switch own {
	case Pull:
		return []SocketType{Push}
	case Push:
		return []SocketType{Pull}
	case Pub:
		return []SocketType{Sub, XSub}
	case Sub:
		return []SocketType{Pub, XPub}
	case Rep:
		return []SocketType{Req, Dealer}
	}
	return nil
}

// Defaults of Config.
const (
	DefaultMaxMessage = 1 << 20
	DefaultMaxParts   = 64
	DefaultHandshake  = 10 * time.Second // libzmq's is 30 s; a peer that needs longer than this on a loopback is none
)

// ErrProtocol is wrapped by the errors that a peer's bytes are to blame for.
var ErrProtocol = errors.New("the peer breaks the protocol")

// ErrDenied is wrapped by the error of a peer whose name or password is wrong.
var ErrDenied = errors.New("the peer is not let in")

// Config says what a Conn allows. Type is required.
type Config struct {
	Type       SocketType    // of this side
	MaxMessage int           // most bytes of one message, all its parts; default DefaultMaxMessage
	MaxParts   int           // most parts of one message; default DefaultMaxParts
	Handshake  time.Duration // most that a handshake may take; default DefaultHandshake
	// Auth makes PLAIN the mechanism and decides who gets in; nil makes it NULL. It is called concurrently.
	Auth func(user, password string) bool
}

func (c Config) withDefaults() Config {
	c.MaxMessage = cmp.Or(max(c.MaxMessage, 0), DefaultMaxMessage)
	c.MaxParts = cmp.Or(max(c.MaxParts, 0), DefaultMaxParts)
	c.Handshake = cmp.Or(max(c.Handshake, 0), DefaultHandshake)
	return c
}

const (
	flagMore    = 1
	flagLong    = 2
	flagCommand = 4

	// maxCommand bounds a command: READY with an identity of 255 bytes and room for properties that we do not know,
	// SUBSCRIBE with a long topic.
	maxCommand = 8 << 10

	// readBuffer is what one connection reads at once. It bounds a peer that says nothing to little memory and still
	// holds hundreds of small messages.
	readBuffer = 64 << 10
)

// Conn is an accepted peer. One goroutine may read while others write.
type Conn struct {
	conn   net.Conn
	cfg    Config
	reader *bufio.Reader
	peer   SocketType
	minor  byte // 0 for ZMTP 3.0, 1 for 3.1

	writing sync.Mutex // one writer at a time: messages, and answers to PING
}

// Peer is the socket type at the other end.
func (c *Conn) Peer() SocketType { return c.peer }

// Close ends the connection; a Read or Write under way fails.
func (c *Conn) Close() error { return c.conn.Close() }

// Message is the parts of one message. It is reused from read to read; the zero Message is ready.
type Message struct {
	data []byte
	ends []int // where each part ends in data
}

// Len is the number of parts.
func (m *Message) Len() int { return len(m.ends) }

// Size is the number of bytes of all parts.
func (m *Message) Size() int { return len(m.data) }

// Part returns part i. Its bytes are valid until the next read into m.
func (m *Message) Part(i int) []byte {
	from := 0
	if i > 0 {
		from = m.ends[i-1]
	}
	return m.data[from:m.ends[i]:m.ends[i]]
}

func (m *Message) reset() { m.data, m.ends = m.data[:0], m.ends[:0] }

// keptMessage is the largest buffer that a Message keeps for the next one.
const keptMessage = 256 << 10

// frame is the head of a frame.
type frame struct {
	flags byte
	size  int
}

// head reads the head of a frame whose body may have at most limit bytes; a command has a limit of its own.
func (c *Conn) head(limit int) (frame, error) {
	flags, err := c.reader.ReadByte()
	if err != nil {
		return frame{}, err
	}
	width, err := headWidth(flags)
	if err != nil {
		return frame{}, err
	}
	var raw [8]byte
	if _, err := io.ReadFull(c.reader, raw[8-width:]); err != nil {
		return frame{}, cut(err)
	}
	size := binary.BigEndian.Uint64(raw[:])
	if flags&flagCommand != 0 {
		limit = maxCommand
	}
	if size > uint64(limit) { // limit is never negative
		return frame{}, fmt.Errorf("%w: a frame of %d bytes where at most %d may follow", ErrProtocol, size, limit)
	}
	return frame{flags, int(size)}, nil
}

// headWidth is the number of bytes of a frame's size, by its flags.
func headWidth(flags byte) (int, error) {
	switch flags {
	case 0, flagMore, flagCommand:
		return 1, nil
	case flagLong, flagLong | flagMore, flagLong | flagCommand:
		return 8, nil
	}
	return 0, fmt.Errorf("%w: a frame with flags %#x", ErrProtocol, flags)
}

// cut makes an end in the middle of something an error of its own.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadMessage reads the next message into m, or returns the subscription that came in its place as a command. Commands
// that keep a connection alive are answered on the way. The error is io.EOF after a goodbye between two messages.
func (c *Conn) ReadMessage(m *Message) (*Subscription, error) {
	if cap(m.data) > keptMessage {
		m.data = nil
	}
	m.reset()
	for {
		f, err := c.head(c.cfg.MaxMessage - len(m.data))
		if err != nil {
			if len(m.ends) > 0 {
				err = cut(err)
			}
			return nil, err
		}
		if f.flags&flagCommand != 0 {
			if len(m.ends) > 0 {
				return nil, fmt.Errorf("%w: a command between the parts of a message", ErrProtocol)
			}
			sub, err := c.command(f.size)
			if err != nil || sub != nil {
				return sub, err
			}
			continue
		}
		if len(m.ends) == c.cfg.MaxParts {
			return nil, fmt.Errorf("%w: a message of more than %d parts", ErrProtocol, c.cfg.MaxParts)
		}
		if err := c.body(m, f.size); err != nil {
			return nil, err
		}
		if f.flags&flagMore == 0 {
			return nil, nil
		}
	}
}

// body reads a part. The buffer grows with what has come and not with what was announced, so that a peer must send what
// it makes us hold.
func (c *Conn) body(m *Message, size int) error {
	for size > 0 {
		step := min(size, readBuffer)
		from := len(m.data)
		m.data = append(m.data, make([]byte, step)...)
		if _, err := io.ReadFull(c.reader, m.data[from:]); err != nil {
			return cut(err)
		}
		size -= step
	}
	m.ends = append(m.ends, len(m.data))
	return nil
}

// Buffered reports whether the next ReadMessage will return without waiting for the peer.
func (c *Conn) Buffered() bool {
	have, err := c.reader.Peek(c.reader.Buffered())
	if err != nil {
		return false
	}
	for len(have) > 0 {
		flags := have[0]
		width, err := headWidth(flags)
		if err != nil {
			return true // it returns the error
		}
		if len(have) < 1+width {
			return false
		}
		var raw [8]byte
		copy(raw[8-width:], have[1:1+width])
		size := binary.BigEndian.Uint64(raw[:])
		have = have[1+width:]
		if size > uint64(len(have)) {
			return false
		}
		have = have[size:]
		if flags&(flagMore|flagCommand) == 0 {
			return true
		}
	}
	return false
}

// AppendMessage appends the encoding of a message of parts, at least one, to dst.
func AppendMessage(dst []byte, parts ...[]byte) []byte {
	for i, part := range parts {
		var flags byte
		if i < len(parts)-1 {
			flags = flagMore
		}
		dst = append(appendHead(dst, flags, len(part)), part...)
	}
	return dst
}

func appendHead(dst []byte, flags byte, size int) []byte {
	if size > 255 {
		return binary.BigEndian.AppendUint64(append(dst, flags|flagLong), uint64(size))
	}
	return append(dst, flags, byte(size))
}

// Write writes encoded messages, whole ones. It blocks while the peer does not read.
func (c *Conn) Write(encoded []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.conn.Write(encoded)
	return err
}
