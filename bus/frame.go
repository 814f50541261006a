package bus

import (
	"fmt"
	"iter"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const frameMagic = "HZF1"

// Frame is one stored message: the events that were stored together. It is not safe for concurrent use.
type Frame struct {
	Stream  string // the stream's name in the manifest
	Subject string // that it was published to; in a stream with a key it is stored on another
	Seq     uint64 // in the stream
	Time    time.Time
	Header  nats.Header // nil when the message has none
	Bytes   int         // as stored, without headers

	message []byte
	layout  wire.Frame
	plain   []byte // the event of a message that is not a frame
	framed  bool
	raw     []byte // decompressed payload, once asked for
	decoded bool
	scratch []byte // where to decompress; a Stage lends its own

	first int     // index of the first event; only a set's is not 0
	set   *rawSet // that a Stage takes for the one event of this frame; else nil

	content string // content type that the headers state; asked for by a Stage

	pending uint64 // messages behind this one when it was delivered
}

// OpenFrame parses and checks a message of stream, the stream's name in the manifest. A message that is not a frame is
// taken as one event; a damaged frame gives the fault bus/bad-frame. The Frame aliases the message's bytes.
func OpenFrame(stream string, msg jetstream.Msg) (*Frame, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read message metadata: %w", err)
	}
	f := &Frame{
		Stream: stream, Subject: published(stream, msg.Subject()), Header: msg.Headers(),
		Seq: meta.Sequence.Stream, Time: meta.Timestamp, pending: meta.NumPending,
	}
	if err := f.parse(msg.Data()); err != nil {
		return nil, err
	}
	return f, nil
}

// published is the subject that what is stored on a subject of stream was published to.
func published(stream, stored string) string {
	subject, _, _ := wire.SplitSubject(stream, stored)
	return subject
}

// OpenData is OpenFrame for the payload of a message that was got in another way: its place in the stream is not known.
func OpenData(stream, subject string, header nats.Header, data []byte) (*Frame, error) {
	f := &Frame{Stream: stream, Subject: subject, Header: header}
	if err := f.parse(data); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Frame) parse(data []byte) error {
	f.Bytes, f.message = len(data), data
	if len(data) < len(frameMagic) || string(data[:len(frameMagic)]) != frameMagic {
		f.framed, f.plain = false, data
		return nil
	}
	layout, err := wire.ParseFrame(data)
	if err != nil {
		return f.bad(err)
	}
	f.framed, f.layout = true, layout
	return nil
}

func (f *Frame) bad(err error) error {
	return &fault.Error{
		Code: CodeBadFrame, Where: fmt.Sprintf("%s:%d", f.Stream, f.Seq), What: "the stored frame is damaged", Err: err,
		Fix: "see it with hozo dlq show; check the disk that holds the broker's store",
	}
}

// Len is the number of events, at least 1.
func (f *Frame) Len() int {
	if !f.framed {
		return 1
	}
	return f.layout.Count()
}

// RawBytes is the size of all events uncompressed, with one newline each when they are framed.
func (f *Frame) RawBytes() int {
	if !f.framed {
		return len(f.plain)
	}
	return f.layout.RawBytes
}

// ID names event i.
func (f *Frame) ID(i int) wire.EventID {
	return wire.EventID{Stream: f.Stream, Seq: f.Seq, Index: f.first + i}
}

// Event returns event i, from 0 to Len()-1. The first call decompresses the frame. The bytes must not be changed.
func (f *Frame) Event(i int) ([]byte, error) {
	if !f.framed {
		return f.plain, nil
	}
	if err := f.decode(); err != nil {
		return nil, err
	}
	return f.layout.Event(f.raw, i), nil
}

// event is Event of a frame that is decoded, or none.
func (f *Frame) event(i int) []byte {
	if !f.framed {
		return f.plain
	}
	return f.layout.Event(f.raw, i)
}

// Events returns every event with its index, in order.
func (f *Frame) Events() (iter.Seq2[int, []byte], error) {
	if f.framed {
		if err := f.decode(); err != nil {
			return nil, err
		}
	}
	return func(yield func(int, []byte) bool) {
		if !f.framed {
			yield(0, f.plain)
			return
		}
		for i := range f.layout.Count() {
			if !yield(i, f.layout.Event(f.raw, i)) {
				return
			}
		}
	}, nil
}

// Stored returns the payload as it is stored, events ended by newlines, and how it is compressed. Payloads of zstd
// frames can be written one after the other into a .zst file. The payload of a message that is not a frame is its one
// event, without a newline.
func (f *Frame) Stored() (wire.Codec, []byte) {
	if !f.framed {
		return wire.CodecNone, f.plain
	}
	return f.layout.Codec, f.layout.Payload
}

// Framed reports whether the message is a frame, and not one bare event.
func (f *Frame) Framed() bool { return f.framed }

// stored is the whole message.
func (f *Frame) stored() []byte { return f.message }

// decodeFramed decompresses a frame; anything else needs none of it.
func (f *Frame) decodeFramed() error {
	if !f.framed {
		return nil
	}
	return f.decode()
}

func (f *Frame) decode() error {
	if f.decoded {
		return nil
	}
	raw, scratch, err := decompress(f.scratch, f.layout.Codec, f.layout.Payload, f.layout.RawBytes)
	f.scratch = scratch
	if err != nil {
		return f.bad(err)
	}
	f.raw, f.decoded = raw, true
	return nil
}

// eventBytes is RawBytes without the newlines.
func (f *Frame) eventBytes() int {
	if !f.framed {
		return len(f.plain)
	}
	return f.layout.RawBytes - f.layout.Count()
}
