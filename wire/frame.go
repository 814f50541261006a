package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// A frame carries many events in one message. Its layout, integers little-endian:
//
//	offset  size
//	     0     4  magic "HZF1"
//	     4     1  codec: 0 none, 1 zstd, 2 s2
//	     5     3  reserved, zero
//	     8     4  count of events, at least 1
//	    12     4  raw length: bytes of the payload before compression
//	    16     4  CRC-32C of bytes 0..15 and of everything from byte 20 on
//	    20     4n end of each event in the raw payload, its trailing newline excluded
//	 20+4n     …  payload: every event followed by one newline, compressed as one unit
//
// Because each event ends in a newline, the payload of a frame of JSON events is NDJSON, and payloads of consecutive
// zstd frames can be concatenated into one valid .ndjson.zst file without decoding them.
const (
	frameMagic     = "HZF1"
	frameHeaderLen = 20

	// MaxFrameRawBytes bounds the uncompressed payload of one frame, and so what a reader must be ready to allocate.
	MaxFrameRawBytes = 8 << 20
)

// Codec says how a frame's payload is compressed.
type Codec uint8

const (
	CodecNone Codec = 0
	CodecZstd Codec = 1 // smallest; what a file sink stores as it is
	CodecS2   Codec = 2 // a block of S2, Snappy's successor: a third of zstd's time for a third more bytes
)

// String gives the manifest's word for the codec.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecZstd:
		return "zstd"
	case CodecS2:
		return "s2"
	default:
		return fmt.Sprintf("codec %d", uint8(c))
	}
}

// Frame is a decoded layout: the payload is still compressed. It aliases the bytes that it was parsed from.
type Frame struct {
	Codec    Codec
	RawBytes int    // length of the payload once decompressed
	Payload  []byte // as stored
	ends     []byte // 4 bytes an event
}

// Count is the number of events in the frame.
func (f Frame) Count() int { return len(f.ends) / 4 }

// Event returns event i of the decompressed payload raw, without its newline. It panics when i is out of range.
func (f Frame) Event(raw []byte, i int) []byte {
	start := 0
	if i > 0 {
		start = f.end(i-1) + 1
	}
	end := f.end(i)
	return raw[start:end:end]
}

func (f Frame) end(i int) int { return int(binary.LittleEndian.Uint32(f.ends[4*i:])) }

// CodecOf reads the manifest's word for a codec; an empty word is the default, zstd. It reports false for words it does
// not know.
func CodecOf(word string) (Codec, bool) {
	for _, c := range []Codec{CodecNone, CodecZstd, CodecS2} {
		if word == c.String() {
			return c, true
		}
	}
	return CodecZstd, word == ""
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFrame is the base of every error of ParseFrame.
var ErrFrame = errors.New("malformed frame")

// AppendFrame appends a frame to dst. ends[i] is the end of event i in the raw payload of rawBytes bytes, of which
// payload is the form compressed by codec.
func AppendFrame(dst []byte, codec Codec, ends []uint32, rawBytes int, payload []byte) []byte {
	start := len(dst)
	dst = slices.Grow(dst, FrameHead(len(ends))+len(payload))[:start+FrameHead(len(ends))]
	dst = append(dst, payload...)
	sealFrame(dst[start:], codec, ends, rawBytes)
	return dst
}

// FrameHead is the size of what comes before the payload of a frame of count events.
func FrameHead(count int) int { return frameHeaderLen + 4*count }

// SealFrame makes a frame of the payload that begins at buf[head], without moving it: what comes before is written into
// the FrameHead(len(ends)) bytes in front of it, which must be there. The frame aliases buf. See AppendFrame for the rest.
func SealFrame(buf []byte, head int, codec Codec, ends []uint32, rawBytes int) []byte {
	frame := buf[head-FrameHead(len(ends)):]
	sealFrame(frame, codec, ends, rawBytes)
	return frame
}

// sealFrame fills in everything of a frame but its payload, which is in its place.
func sealFrame(frame []byte, codec Codec, ends []uint32, rawBytes int) {
	copy(frame, frameMagic)
	frame[4], frame[5], frame[6], frame[7] = byte(codec), 0, 0, 0
	binary.LittleEndian.PutUint32(frame[8:], uint32(len(ends)))
	binary.LittleEndian.PutUint32(frame[12:], uint32(rawBytes))
	table := frame[frameHeaderLen:FrameHead(len(ends))]
	for i, end := range ends {
		binary.LittleEndian.PutUint32(table[4*i:], end)
	}
	binary.LittleEndian.PutUint32(frame[16:], frameSum(frame))
}

// ParseFrame checks b and returns its layout. The error wraps ErrFrame and says which rule b breaks.
func ParseFrame(b []byte) (Frame, error) {
	if len(b) < frameHeaderLen || string(b[:4]) != frameMagic {
		return Frame{}, fmt.Errorf("%w: no %s header in %d bytes", ErrFrame, frameMagic, len(b))
	}
	codec := Codec(b[4])
	count, raw := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	switch {
	case codec > CodecS2 || b[5] != 0 || b[6] != 0 || b[7] != 0:
		return Frame{}, fmt.Errorf("%w: codec %d of a newer version", ErrFrame, codec)
	case count == 0 || raw > MaxFrameRawBytes || count > raw:
		return Frame{}, fmt.Errorf("%w: %d events in %d bytes", ErrFrame, count, raw)
	case int64(len(b)) < frameHeaderLen+4*int64(count):
		return Frame{}, fmt.Errorf("%w: %d bytes cannot hold %d offsets", ErrFrame, len(b), count)
	}
	if want, got := binary.LittleEndian.Uint32(b[16:]), frameSum(b); want != got {
		return Frame{}, fmt.Errorf("%w: checksum is %08x, content gives %08x", ErrFrame, want, got)
	}
	table := frameHeaderLen + 4*int(count)
	f := Frame{Codec: codec, RawBytes: int(raw), Payload: b[table:], ends: b[frameHeaderLen:table]}
	next := 0 // first byte of the next event
	for i := range int(count) {
		end := f.end(i)
		if end < next || end >= int(raw) {
			return Frame{}, fmt.Errorf("%w: event %d ends at %d, outside %d..%d", ErrFrame, i, end, next, raw)
		}
		next = end + 1
	}
	if next != int(raw) {
		return Frame{}, fmt.Errorf("%w: events end at %d of %d bytes", ErrFrame, next, raw)
	}
	if codec == CodecNone && len(f.Payload) != int(raw) {
		return Frame{}, fmt.Errorf("%w: payload is %d bytes, header says %d", ErrFrame, len(f.Payload), raw)
	}
	return f, nil
}

func frameSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:16], castagnoli), castagnoli, b[frameHeaderLen:])
}
