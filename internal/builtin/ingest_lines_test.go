package builtin

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
)

// plainCut is cut in the simplest words.
func plainCut(body []byte, maxLine int) (good []string, bad int) {
	for line := range strings.SplitSeq(string(body), "\n") {
		line = strings.Trim(line, " \t\r")
		switch {
		case line == "":
		case len(line) > maxLine || !utf8.ValidString(line) || !json.Valid([]byte(line)):
			bad++
		default:
			good = append(good, line)
		}
	}
	return good, bad
}

func FuzzCutAgreesWithThePlainWay(f *testing.F) {
	f.Add([]byte("{\"a\":1}\r\n\n  {\"b\": 2}\t\n[3]"))
	f.Add([]byte("{\"a\":\"\\ud800\"}\n-0\n01\n1e5\n1e\n\"\x7f\"\n\xff\n{} {}\nnul\nnull"))
	f.Add([]byte("\r\r\r\n{\"a\":{\"b\":[1,2,{\"c\":null}]}}\n{,}\n[1,]\n\"\\u12g4\"\n\"\\x\""))
	f.Fuzz(func(t *testing.T, body []byte) {
		const maxLine = 50
		want, bad := plainCut(body, maxLine)
		b := cut(bytes.Clone(body), maxLine)
		if b.accepted != len(want) || b.rejectedTotal != bad {
			t.Fatalf("%q: %d accepted and %d rejected, want %d and %d", body, b.accepted, b.rejectedTotal, len(want), bad)
		}
		var got []string
		end := 0
		for _, p := range b.parts {
			if p.start != end {
				t.Fatalf("part %+v does not begin at %d", p, end)
			}
			end = p.end
			n := 0
			b.eachEvent(p, func(e []byte) { got = append(got, string(e)); n++ })
			if n != p.events {
				t.Fatalf("part %+v holds %d events", p, n)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("%q: got %q, want %q", body, got, want)
		}
	})
}

func TestPartsAreBoundedAndTheSameEachTime(t *testing.T) {
	t.Parallel()
	for name, body := range map[string][]byte{
		"many small": bytes.Repeat([]byte("1\n"), 40000),
		"middling":   numbered(0, 20000, 50),
		"large": append(append(numbered(0, 10, 10), `"`+strings.Repeat("x", 600<<10)+"\"\n"...),
			numbered(0, 10, 10)...),
	} {
		one, two := cut(bytes.Clone(body), 1<<20), cut(bytes.Clone(body), 1<<20)
		if len(one.parts) < 3 || len(one.parts) != len(two.parts) {
			t.Errorf("%s: %d and %d parts", name, len(one.parts), len(two.parts))
		}
		for i, p := range one.parts {
			if p != two.parts[i] {
				t.Errorf("%s: part %d is %+v and %+v", name, i, p, two.parts[i])
			}
			if p.events > bus.MaxFrameEvents || (p.end-p.start > bus.TargetFrameBytes && p.events > 1) {
				t.Errorf("%s: part %d is %+v", name, i, p)
			}
		}
	}
}

// sample is JSON lines like those of an event source, or the first 8 MiB of the file that HOZO_BENCH_EVENTS names.
func sample(b testing.TB) []byte {
	b.Helper()
	if path := os.Getenv("HOZO_BENCH_EVENTS"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		data = data[:min(len(data), 8<<20)]
		return data[:bytes.LastIndexByte(data, '\n')+1]
	}
	line := `{"id":"2489651045","type":"PushEvent","actor":{"id":1,"login":"someone","url":"https://example.org/users/someone"},"repo":{"id":2,"name":"a/b"},"payload":{"push_id":536863970,"size":1,"commits":[{"sha":"6b089eb4a43f728f0a594388092f480f2ecacfcd","message":"` +
		strings.Repeat("a message of some length, ", 20) + `"}]},"public":true,"created_at":"2015-01-01T15:00:00Z"}` + "\n"
	return bytes.Repeat([]byte(line), 4<<20/len(line))
}

// What does ingest pay for a megabyte: finding and checking lines, and making frames of them?
func BenchmarkIngest(b *testing.B) {
	body := sample(b)
	buf := make([]byte, len(body)+1)
	b.Run("cut", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			copy(buf, body)
			cut(buf[:len(body)], 1<<20)
		}
	})
	b.Run("frame", func(b *testing.B) {
		cutting := cut(append(buf[:0], body...), 1<<20)
		builder := bus.NewBuilder(wire.CodecZstd)
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		stored := 0
		for b.Loop() {
			for _, p := range cutting.parts {
				builder.Reset()
				cutting.eachEvent(p, func(e []byte) { builder.Add(e) })
				stored += len(builder.Frame())
			}
		}
	})
	b.Run("encoding-json-valid", func(b *testing.B) { // the control
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			for line := range bytes.Lines(body) {
				if !json.Valid(line) {
					b.Fatal("bad line")
				}
			}
		}
	})
}
