package jsonscan_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/ghevents"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/tidwall/gjson"
)

// documents are the corners of the grammar; neighbours differ in what makes one of them wrong.
var documents = []string{
	"", " ", "null", "nul", "nulL", " true\t\r\n", "tru", "false", "falsee", "\vnull", "null\x00", "\u00a01",
	"0", "-0", "00", "01", "-", "+1", "1.", ".5", "1.5", "-1.25e+10", "1e", "1e+", "1E-7", "1e5.5", "0x10", "9999999999999999999999",
	`""`, `"`, `"a`, `"\"`, `"\\"`, `"\\\"`, `"\/\b\f\n\r\t"`, `"\x"`, `"\u12aF"`, `"\u12g4"`, `"\u12G4"`, `"\u123"`, `"\u123`, `"\ud800"`, `"\u@@@@"`, "\"\\u\x7f\x7f\x7f\x7f\"",
	"\"1234567\x1f\"", "\"12345678\x1f\"", "\"\n\"", "\"\x7f\"", "\"\xff\xfe\"", `"grüße 世界"`, `"12345678"`, `"1234567"`, `"123456789\"0123456\\"`, "\"\x80\x81\x82\x83\x84\x85\x86\x1f\"",
	"{}", "{ }", "{", "}", "{,}", `{"a"}`, `{"a":}`, `{"a":1}`, `{"a":1,}`, `{"a":1 "b":2}`, `{"a" : [ 1 , 2 ] , "b" : { } }`, `{a:1}`, `{1:1}`, `{"a":1}}`, `{"a":1]`, "{} {}",
	"[]", "[ ]", "[", "]", "[,]", "[1,]", "[1 2]", "[[[]]]", "[[[]]", "[1}", "[\"a\",{\"b\":[null]}]",
}

func TestValidSaysWhatEncodingJSONSays(t *testing.T) {
	t.Parallel()
	for _, d := range documents {
		if got, want := jsonscan.Valid([]byte(d)), json.Valid([]byte(d)); got != want {
			t.Errorf("Valid(%q) = %v", d, got)
		}
	}
	// Every byte of an event, and every value in its place: each way to break a document in one byte.
	event := []byte(`{"id":"1","n":-1.5e3,"l":[true,null,{"s":"a long string \"with\" \u00e9scapes"}]}`)
	for i, was := range event {
		for c := range 256 {
			event[i] = byte(c)
			if got, want := jsonscan.Valid(event), json.Valid(event); got != want {
				t.Fatalf("Valid(%q) = %v", event, got)
			}
		}
		event[i] = was
		if jsonscan.Valid(event[:i]) {
			t.Fatalf("Valid(%q) = true", event[:i])
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	for _, open := range []string{"[", `{"a":`} {
		closing := map[string]string{"[": "]", `{"a":`: "}"}[open]
		for _, depth := range []int{jsonscan.MaxDepth - 1, jsonscan.MaxDepth, jsonscan.MaxDepth + 1} {
			d := []byte(strings.Repeat(open, depth) + "1" + strings.Repeat(closing, depth))
			if got, want := jsonscan.Valid(d), json.Valid(d); got != want || want != (depth <= jsonscan.MaxDepth) {
				t.Errorf("%d times %s: %v, encoding/json says %v", depth, open, got, want)
			}
		}
		if jsonscan.Valid([]byte(strings.Repeat(open, 1<<20))) {
			t.Errorf("a million times %s is valid", open)
		}
	}
}

func FuzzValidSaysWhatEncodingJSONSays(f *testing.F) {
	for _, d := range documents {
		f.Add([]byte(d))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, want := jsonscan.Valid(data), json.Valid(data); got != want {
			t.Errorf("Valid(%q) = %v", data, got)
		}
	})
}

// How fast is the check on events, and how fast are the others?
func BenchmarkValid(b *testing.B) {
	made := ghevents.New(1)
	var events [][]byte
	bytes := 0
	for range 1000 {
		e := made.Next(nil)
		events, bytes = append(events, e), bytes+len(e)
	}
	for name, valid := range map[string]func([]byte) bool{
		"jsonscan": jsonscan.Valid, "gjson": gjson.ValidBytes, "encoding_json": json.Valid,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(bytes))
			b.ReportAllocs()
			for b.Loop() {
				for _, e := range events {
					if !valid(e) {
						b.Fatalf("%q is not valid", e)
					}
				}
			}
		})
	}
}
