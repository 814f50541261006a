// Package protocol is what a deploy and its agent on a host say to each other, over the two streams of one ssh session.
//
// Every message is a frame: four bytes with the length of the rest, one byte that says what it is, and JSON; a blob has
// its digest and its bytes instead. What is longer than a packet is compressed with zstd.
//
//	agent: Hello   controller: Plan   agent: Want   controller: Blob…
//	agent: Planned…  Checked          controller: Go, Alive…
//	agent: Event…  Done
//
// A plan that only looks ends after Checked. An error of the agent's is Done with a fault.
package protocol

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/resource"
)

// Version is of the protocol. The agent is a copy of the controller's own binary, so the two differ only where somebody
// has put another in its place.
const Version = 1

// MaxFrame bounds a frame, before and after it is decompressed: an archive or a binary of half a gigabyte.
const MaxFrame = 512 << 20

// Timing of a lease: a controller that has the lease of a host says Alive every Beat, and after Lease without a word
// the agent gives it up, unless it is at work, which it finishes.
const (
	Beat  = 4 * time.Second
	Lease = 15 * time.Second
)

// Kind says what a frame is.
type Kind byte

// The kinds of frames.
const (
	KindHello   Kind = 'H'
	KindPlan    Kind = 'P'
	KindWant    Kind = 'W'
	KindBlob    Kind = 'B'
	KindPlanned Kind = 'C'
	KindChecked Kind = 'K'
	KindGo      Kind = 'G'
	KindAlive   Kind = 'A'
	KindEvent   Kind = 'E'
	KindDone    Kind = 'D'
)

// Hello is the agent's first word.
type Hello struct {
	Version int    `json:"version"`
	Host    string `json:"host"` // its own name
	UID     int    `json:"uid"`
}

// Plan is what is wanted of the host.
type Plan struct {
	Run       string          `json:"run"`     // names this run
	Project   string          `json:"project"` // with Env it names the state on the host
	Env       string          `json:"env"`
	By        string          `json:"by"`     // who, for the host's journal and for who finds the lease taken
	Deploy    bool            `json:"deploy"` // false: only look
	Resources []resource.Spec `json:"resources"`
}

// Want lists the digests of content that the host lacks.
type Want struct {
	Digests []string `json:"digests"`
}

// Planned is a resource that differs.
type Planned struct {
	ID     string          `json:"id"`
	Change resource.Change `json:"change"`
}

// Checked ends the list of what differs.
type Checked struct {
	Digest    string   `json:"digest"` // of every change
	Unchanged int      `json:"unchanged"`
	Pending   []string `json:"pending,omitempty"` // notified by an earlier run, which did not get to it
	Notifies  []string `json:"notifies,omitempty"`
}

// Go tells the agent to make the changes that Digest names.
type Go struct {
	Digest string `json:"digest"`
}

// Event is something that was done.
type Event struct {
	ID       string      `json:"id"`
	Op       resource.Op `json:"op,omitempty"`
	Handling string      `json:"handling,omitempty"` // a notification was dealt with: restart, reload, run
	Begun    bool        `json:"begun,omitempty"`    // it is being done
	Notes    []string    `json:"notes,omitempty"`
	MS       int64       `json:"ms"`
}

// Done ends a session.
type Done struct {
	Changed int     `json:"changed"`
	Handled int     `json:"handled"`
	Failed  []Fault `json:"failed,omitempty"`
}

// Fault is a [fault.Error] on its way.
type Fault struct {
	Code  string `json:"code"`
	Kind  int    `json:"kind,omitempty"`
	What  string `json:"what"`
	Where string `json:"where,omitempty"`
	Fix   string `json:"fix,omitempty"`
}

// Faults makes an error fit for the way, each leaf of a joined one by itself.
func Faults(err error) []Fault {
	var all []Fault
	for _, one := range fault.Flatten(err) {
		f, ok := fault.As(one)
		if !ok {
			all = append(all, Fault{Code: "deploy/agent", What: one.Error(), Fix: "deploy again; the next plan shows what is left to do"})
			continue
		}
		what := f.What
		if f.Err != nil {
			what += ": " + f.Err.Error()
		}
		all = append(all, Fault{Code: f.Code, Kind: int(f.Kind), What: what, Where: f.Where, Fix: f.Fix})
	}
	return all
}

// Err is what was sent with Faults, as an error again; nil where there is none.
func (d Done) Err() error {
	var all []error
	for _, f := range d.Failed {
		all = append(all, &fault.Error{Code: f.Code, Kind: fault.Kind(f.Kind), What: f.What, Where: f.Where, Fix: f.Fix})
	}
	return errors.Join(all...)
}

// Conn reads and writes frames. One goroutine may read while others write.
type Conn struct {
	r io.Reader

	mu  sync.Mutex // guards what is below
	w   io.Writer
	enc *zstd.Encoder
	dec *zstd.Decoder // the reader's
}

// NewConn makes a Conn of two streams.
func NewConn(r io.Reader, w io.Writer) (*Conn, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxFrame))
	if err != nil {
		return nil, err
	}
	return &Conn{r: r, w: w, enc: enc, dec: dec}, nil
}

// compressed is the bit of a frame's kind that says so.
const compressed = 0x80

// worthwhile is the size beyond which a frame is compressed: about one packet.
const worthwhile = 1200

// Send writes a message as JSON.
func (c *Conn) Send(kind Kind, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode frame %c: %w", kind, err)
	}
	return c.write(kind, data)
}

// SendBlob writes content under its digest.
func (c *Conn) SendBlob(digest string, data []byte) error {
	return c.write(KindBlob, append([]byte(digest), data...))
}

func (c *Conn) write(kind Kind, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(data) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes is larger than %d", len(data), MaxFrame)
	}
	if len(data) > worthwhile {
		kind |= compressed
		data = c.enc.EncodeAll(data, make([]byte, 0, len(data)/2))
	}
	frame := make([]byte, 5, 5+len(data))
	binary.BigEndian.PutUint32(frame, uint32(1+len(data)))
	frame[4] = byte(kind)
	_, err := c.w.Write(append(frame, data...))
	return err
}

// Read returns the next frame. Its error is io.EOF at the end between two frames.
func (c *Conn) Read() (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || n > MaxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes: this is not the protocol", n)
	}
	// Grown while it arrives: the length alone makes nobody allocate.
	data, err := io.ReadAll(io.LimitReader(c.r, int64(n-1)))
	if err == nil && len(data) < int(n-1) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, err
	}
	kind := Kind(head[4])
	if kind&compressed != 0 {
		kind &^= compressed
		if data, err = c.dec.DecodeAll(data, nil); err != nil {
			return 0, nil, fmt.Errorf("decompress frame %c: %w", kind, err)
		}
	}
	return kind, data, nil
}

// Blob takes apart the content of a KindBlob frame, and checks it.
func Blob(data []byte) (digest string, content []byte, err error) {
	const size = 64
	if len(data) < size {
		return "", nil, io.ErrUnexpectedEOF
	}
	digest, content = string(data[:size]), data[size:]
	if resource.Digest(content) != digest {
		return "", nil, fmt.Errorf("the content of %.12s is not what its digest says", digest)
	}
	return digest, content, nil
}
