package bus

import (
	"slices"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// TargetFrameBytes is the raw size at which a frame is full. At 512 KiB compression has all but reached its best
	// ratio, what each message costs beside its bytes no longer shows, and a stage still holds a frame for only some
	// 5 ms.
	TargetFrameBytes = 512 << 10

	// PlainFrameBytes is the same where nothing is compressed. Frames are larger there because bytes cost less, so what
	// each message costs shows again: it is a quarter of what the broker takes as one message, so that what a stage makes
	// of a frame fits in one too.
	PlainFrameBytes = 1 << 20

	// MaxFrameEvents is the number of events at which a frame is full. It bounds the offset table, 4 bytes an event,
	// to 64 KiB.
	MaxFrameEvents = 16384
)

// Builder makes frames: events are added and encoded as one. Its buffers are reused. Not safe for concurrent use.
type Builder struct {
	codec   wire.Codec
	events  eventBuffer
	payload []byte // compressed
	frame   []byte
}

// NewBuilder returns an empty Builder of frames that are compressed by codec.
func NewBuilder(codec wire.Codec) *Builder {
	b := &Builder{codec: codec}
	if codec == wire.CodecNone {
		b.events.head = wire.FrameHead(MaxFrameEvents)
	}
	return b
}

// Add copies event into the frame. It reports false, and adds nothing, when the frame would outgrow
// wire.MaxFrameRawBytes. An event should hold no newline: readers that cut the raw payload at newlines would split it.
func (b *Builder) Add(event []byte) bool {
	if b.events.bytes()+len(event)+1 > wire.MaxFrameRawBytes {
		return false
	}
	b.events.addOne(event)
	return true
}

// Len is the number of events added.
func (b *Builder) Len() int { return b.events.len() }

// RawBytes is the size of the events, one newline each included.
func (b *Builder) RawBytes() int { return b.events.bytes() }

// Full reports whether the frame has reached its target or MaxFrameEvents. A full Builder still takes events.
// A Publisher decides by its own PublisherConfig.FrameBytes.
func (b *Builder) Full() bool {
	return b.RawBytes() >= targetBytes(b.codec) || b.Len() >= MaxFrameEvents
}

// targetBytes is the raw size at which a frame of codec is full.
func targetBytes(codec wire.Codec) int {
	if codec == wire.CodecNone {
		return PlainFrameBytes
	}
	return TargetFrameBytes
}

// Frame encodes the events added so far, or returns nil when there are none. The bytes are valid until the next call
// of Frame or Reset.
func (b *Builder) Frame() []byte {
	if b.Len() == 0 {
		return nil
	}
	if b.codec == wire.CodecNone && b.Len() <= MaxFrameEvents {
		return wire.SealFrame(b.events.buf, b.events.head, b.codec, b.events.ends, b.RawBytes())
	}
	b.frame, b.payload = b.events.encode(b.frame[:0], b.payload, b.codec, 0, b.Len())
	return b.frame
}

// Reset forgets the events and keeps the buffers.
func (b *Builder) Reset() { b.events.truncate(0) }

// eventBuffer is events one after the other, each ended by a newline, and where each one ends.
type eventBuffer struct {
	head int      // bytes of buf before the first event: room for what comes before them in a frame
	buf  []byte   // empty, or head bytes and the events
	ends []uint32 // from head, excluding the newline
}

func (e *eventBuffer) len() int    { return len(e.ends) }
func (e *eventBuffer) bytes() int  { return max(len(e.buf)-e.head, 0) }
func (e *eventBuffer) raw() []byte { return e.buf[e.head:] }

// add appends one event, given in pieces.
func (e *eventBuffer) add(pieces ...[]byte) {
	if len(e.buf) == 0 && e.head > 0 {
		e.buf = slices.Grow(e.buf, e.head)[:e.head]
	}
	for _, piece := range pieces {
		e.buf = append(e.buf, piece...)
	}
	e.ends = append(e.ends, uint32(len(e.buf)-e.head))
	e.buf = append(e.buf, '\n')
}

// addOne is add of one event in one piece, which is what most are.
func (e *eventBuffer) addOne(event []byte) {
	start := max(len(e.buf), e.head)
	end := start + len(event)
	if end >= cap(e.buf) {
		e.buf = slices.Grow(e.buf, end+1-len(e.buf))
	}
	buf := e.buf[:end+1]
	copy(buf[start:], event)
	buf[end] = '\n'
	e.buf = buf
	e.ends = append(e.ends, uint32(end-e.head))
}

// start is the offset of event i.
func (e *eventBuffer) start(i int) int {
	if i == 0 {
		return 0
	}
	return int(e.ends[i-1]) + 1
}

func (e *eventBuffer) event(i int) []byte { return e.raw()[e.start(i):e.ends[i]] }

// truncate keeps the first n events.
func (e *eventBuffer) truncate(n int) {
	if len(e.buf) > 0 {
		e.buf = e.buf[:e.head+e.start(n)]
	}
	e.ends = e.ends[:n]
}

// cut returns the end of the frame that begins with event from: as many events as fit in bytes, but at least one.
func (e *eventBuffer) cut(from, bytes int) int {
	start, to := e.start(from), from+1
	for to < e.len() && e.start(to+1)-start <= bytes && to-from < MaxFrameEvents {
		to++
	}
	return to
}

// encode appends the frame of the events from to to-1 to dst. scratch is a buffer that it may use and returns.
func (e *eventBuffer) encode(dst, scratch []byte, codec wire.Codec, from, to int) (frame, buf []byte) {
	start := e.start(from)
	raw, ends := e.raw()[start:e.start(to)], e.ends[from:to]
	if start > 0 {
		shifted := make([]uint32, len(ends))
		for i, end := range ends {
			shifted[i] = end - uint32(start)
		}
		ends = shifted
	}
	if codec == wire.CodecNone {
		return wire.AppendFrame(dst, codec, ends, len(raw), raw), scratch
	}
	scratch = compress(scratch[:0], codec, raw)
	return wire.AppendFrame(dst, codec, ends, len(raw), scratch), scratch
}
