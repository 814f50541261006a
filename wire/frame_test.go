package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/wire"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew: a change in one is a change of the protocol")

// frameOf builds an uncompressed frame of events.
func frameOf(events ...string) []byte {
	var raw []byte
	var ends []uint32
	for _, e := range events {
		raw = append(raw, e...)
		ends = append(ends, uint32(len(raw)))
		raw = append(raw, '\n')
	}
	return wire.AppendFrame(nil, wire.CodecNone, ends, len(raw), raw)
}

func TestFrameLayoutIsWhatItWas(t *testing.T) {
	t.Parallel()
	cases := map[string][]byte{
		"one.frame":        frameOf(`{"id":1}`),
		"three.frame":      frameOf(`{"id":1}`, ``, `{"name":"é"}`),
		"compressed.frame": wire.AppendFrame(nil, wire.CodecZstd, []uint32{3, 7}, 8, []byte("not looked into")),
	}
	for name, got := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("layout changed:\ngot  %x\nwant %x", got, want)
			}
			if _, err := wire.ParseFrame(want); err != nil {
				t.Errorf("a stored frame is not read any more: %v", err)
			}
		})
	}
}

func TestFrameGivesBackItsEvents(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 1, 50).Draw(t, "events")
		var raw []byte
		var ends []uint32
		for _, e := range events {
			raw = append(raw, e...)
			ends = append(ends, uint32(len(raw)))
			raw = append(raw, '\n')
		}
		prefix := rapid.SliceOf(rapid.Byte()).Draw(t, "prefix")
		all := wire.AppendFrame(bytes.Clone(prefix), wire.CodecNone, ends, len(raw), raw)
		if !bytes.HasPrefix(all, prefix) {
			t.Fatal("AppendFrame changed what was there")
		}
		f, err := wire.ParseFrame(all[len(prefix):])
		if err != nil {
			t.Fatal(err)
		}
		if f.Count() != len(events) || f.RawBytes != len(raw) {
			t.Fatalf("frame of %d events, %d bytes; want %d, %d", f.Count(), f.RawBytes, len(events), len(raw))
		}
		for i, want := range events {
			if got := f.Event(f.Payload, i); !bytes.Equal(got, want) {
				t.Fatalf("event %d is %q, want %q", i, got, want)
			}
		}
	})
}

func TestFrameRefusesEveryFlippedBit(t *testing.T) {
	t.Parallel()
	frame := frameOf(`{"id":1}`, `{"id":2}`)
	for i := range len(frame) * 8 {
		damaged := bytes.Clone(frame)
		damaged[i/8] ^= 1 << (i % 8)
		if _, err := wire.ParseFrame(damaged); !errors.Is(err, wire.ErrFrame) {
			t.Fatalf("bit %d of byte %d flipped: error is %v, want ErrFrame", i%8, i/8, err)
		}
	}
}

func TestFrameRefusesEveryTruncation(t *testing.T) {
	t.Parallel()
	frame := frameOf(`{"id":1}`, `{"id":2}`)
	for n := range frame {
		if _, err := wire.ParseFrame(frame[:n]); !errors.Is(err, wire.ErrFrame) {
			t.Fatalf("%d of %d bytes: error is %v, want ErrFrame", n, len(frame), err)
		}
	}
}

func TestParseFrameSaysWhichRuleIsBroken(t *testing.T) {
	t.Parallel()
	big := wire.AppendFrame(nil, wire.CodecZstd, []uint32{1}, wire.MaxFrameRawBytes+1, []byte("x"))
	cases := []struct {
		name  string
		frame []byte
		want  string
	}{
		{"empty", nil, "no HZF1 header"},
		{"no events", wire.AppendFrame(nil, wire.CodecNone, nil, 0, nil), "0 events"},
		{"too large", big, "1 events in 8388609 bytes"},
		{"more events than bytes", wire.AppendFrame(nil, wire.CodecNone, []uint32{0, 1, 2}, 2, []byte("\n\n")), "3 events in 2 bytes"},
		{"newer codec", wire.AppendFrame(nil, wire.Codec(9), []uint32{0}, 1, []byte("\n")), "newer version"},
		{"ends go back", wire.AppendFrame(nil, wire.CodecNone, []uint32{2, 1, 4}, 5, []byte("ab\nc\n")), "event 1 ends at 1"},
		{"end outside", wire.AppendFrame(nil, wire.CodecNone, []uint32{9}, 3, []byte("ab\n")), "event 0 ends at 9"},
		{"bytes behind the last event", wire.AppendFrame(nil, wire.CodecNone, []uint32{1}, 4, []byte("a\nb\n")), "events end at 2 of 4"},
		{"payload shorter than said", wire.AppendFrame(nil, wire.CodecNone, []uint32{3}, 4, []byte("ab\n")), "payload is 3 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := wire.ParseFrame(c.frame)
			if !errors.Is(err, wire.ErrFrame) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want ErrFrame with %q", err, c.want)
			}
		})
	}
}

func TestCodecNamesAreTheManifests(t *testing.T) {
	t.Parallel()
	for codec, want := range map[wire.Codec]string{wire.CodecNone: "none", wire.CodecZstd: "zstd", wire.CodecS2: "s2", 7: "codec 7"} {
		if got := codec.String(); got != want {
			t.Errorf("codec %d is called %q, want %q", uint8(codec), got, want)
		}
	}
}

// FuzzParseFrame: any bytes are either refused, or read so that every event lies inside and the frame can be written
// again byte by byte.
func FuzzParseFrame(f *testing.F) {
	for _, name := range []string{"one.frame", "three.frame", "compressed.frame"} {
		seed, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := wire.ParseFrame(b)
		if err != nil {
			// The checksum refuses nearly everything, so try the rules behind it with a right one.
			if len(b) < 20 || string(b[:4]) != "HZF1" {
				return
			}
			if frame, err = wire.ParseFrame(withSum(b)); err != nil {
				return
			}
			b = withSum(b)
		}
		raw := make([]byte, frame.RawBytes)
		ends := make([]uint32, frame.Count())
		total := 0
		for i := range frame.Count() {
			total += len(frame.Event(raw, i)) + 1
			ends[i] = uint32(total - 1)
		}
		if total != frame.RawBytes {
			t.Fatalf("events and newlines make %d bytes of %d", total, frame.RawBytes)
		}
		if again := wire.AppendFrame(nil, frame.Codec, ends, frame.RawBytes, frame.Payload); !bytes.Equal(again, b) {
			t.Fatalf("written again it is another frame:\n%x\n%x", again, b)
		}
	})
}

// withSum puts the right checksum into a copy of b.
func withSum(b []byte) []byte {
	fixed := bytes.Clone(b)
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(fixed[:16], table), table, fixed[20:])
	binary.LittleEndian.PutUint32(fixed[16:], sum)
	return fixed
}
