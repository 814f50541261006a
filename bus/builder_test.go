package bus_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func TestBuilderKeepsEventsInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		codec := rapid.SampledFrom([]wire.Codec{wire.CodecNone, wire.CodecZstd, wire.CodecS2}).Draw(t, "codec")
		b := bus.NewBuilder(codec)
		for round := range 3 { // buffers are reused
			events := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 1, 40).Draw(t, "events")
			size := 0
			for _, e := range events {
				if !b.Add(e) {
					t.Fatal("a small event was refused")
				}
				size += len(e) + 1
			}
			if b.Len() != len(events) || b.RawBytes() != size {
				t.Fatalf("round %d: %d events of %d bytes, want %d of %d", round, b.Len(), b.RawBytes(), len(events), size)
			}
			f, err := wire.ParseFrame(b.Frame())
			if err != nil {
				t.Fatal(err)
			}
			raw := decompressed(t, f)
			for i, want := range events {
				if got := f.Event(raw, i); !bytes.Equal(got, want) {
					t.Fatalf("event %d is %q, want %q", i, got, want)
				}
			}
			b.Reset()
		}
	})
}

func decompressed(t interface{ Fatal(...any) }, f wire.Frame) []byte {
	switch f.Codec {
	case wire.CodecNone:
		return f.Payload
	case wire.CodecS2:
		raw, err := s2.Decode(nil, f.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(f.Payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBuilderWithoutEventsMakesNoFrame(t *testing.T) {
	t.Parallel()
	b := bus.NewBuilder(wire.CodecZstd)
	if frame := b.Frame(); frame != nil {
		t.Errorf("an empty builder made %x", frame)
	}
	b.Add([]byte("x"))
	b.Reset()
	if frame := b.Frame(); frame != nil {
		t.Errorf("a reset builder made %x", frame)
	}
}

func TestBuilderIsFullByBytesOrByCount(t *testing.T) {
	t.Parallel()
	for codec, target := range map[wire.Codec]int{
		wire.CodecNone: bus.PlainFrameBytes, wire.CodecZstd: bus.TargetFrameBytes, wire.CodecS2: bus.TargetFrameBytes,
	} {
		b := bus.NewBuilder(codec)
		b.Add(bytes.Repeat([]byte{'x'}, target-2))
		if b.Full() {
			t.Errorf("%v: full one byte below the target", codec)
		}
		b.Add(nil)
		if !b.Full() {
			t.Errorf("%v: not full at the target", codec)
		}
		b.Reset()
		for range bus.MaxFrameEvents {
			if b.Full() {
				t.Fatalf("%v: full too early", codec)
			}
			b.Add([]byte{'x'})
		}
		if !b.Full() {
			t.Errorf("%v: not full at the most events", codec)
		}
	}
}

func TestBuilderRefusesWhatAReaderWouldRefuse(t *testing.T) {
	t.Parallel()
	b := bus.NewBuilder(wire.CodecZstd)
	if !b.Add(make([]byte, wire.MaxFrameRawBytes-1)) {
		t.Fatal("the largest event was refused")
	}
	if b.Add(nil) {
		t.Error("a frame over the limit was begun")
	}
	if _, err := wire.ParseFrame(b.Frame()); err != nil {
		t.Errorf("the largest frame is refused: %v", err)
	}
	b.Reset()
	if b.Add(make([]byte, wire.MaxFrameRawBytes)) {
		t.Error("an event over the limit was taken")
	}
}

func TestZstdPayloadsCanBeJoinedIntoOneFile(t *testing.T) {
	t.Parallel()
	var file []byte
	b := bus.NewBuilder(wire.CodecZstd)
	for _, line := range []string{`{"n":1}`, `{"n":2}`} {
		b.Add([]byte(line))
		f, err := wire.ParseFrame(b.Frame())
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, f.Payload...)
		b.Reset()
	}
	dec, err := zstd.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	var text strings.Builder
	if _, err := dec.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	if got, want := text.String(), "{\"n\":1}\n{\"n\":2}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
