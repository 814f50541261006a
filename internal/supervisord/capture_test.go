//go:build linux

package supervisord

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// captured is what a capture made of its input.
type captured struct {
	log    string
	events []string
}

func runCapture(maxBytes int, pieces ...[]byte) captured {
	var got captured
	c := &capture{
		max:  maxBytes,
		log:  func(data []byte) { got.log += string(data) },
		emit: func(data []byte) { got.events = append(got.events, string(data)) },
	}
	for _, p := range pieces {
		c.write(p)
	}
	c.close()
	return got
}

func TestCaptureFindsTokensHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	input := []byte("before " + string(captureBegin) + "one" + string(captureEnd) + " between <!--XSUPER " +
		string(captureBegin) + string(captureEnd) + "after")
	want := captured{log: "before  between <!--XSUPER after", events: []string{"one", ""}}
	for i := range input {
		for j := i; j < len(input); j += 7 {
			got := runCapture(100, input[:i], input[i:j], input[j:])
			if got.log != want.log || !slices.Equal(got.events, want.events) {
				t.Fatalf("cut at %d and %d: %+v, want %+v", i, j, got, want)
			}
		}
	}
}

func TestCaptureKeepsTheLastBytes(t *testing.T) {
	t.Parallel()
	c := string(captureBegin) + strings.Repeat("x", 50)
	got := runCapture(60, []byte(c), []byte(strings.Repeat("y", 40)), captureEnd, []byte("z"))
	if len(got.events) != 1 || len(got.events[0]) > 60 || !strings.HasSuffix(got.events[0], strings.Repeat("y", 40)) {
		t.Errorf("events %q", got.events)
	}
	if got.log != "z" {
		t.Errorf("log %q", got.log)
	}
}

func TestCaptureLosesNothingAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, last := range []string{"short", "<!--XSUPERVISOR:BEGIN", "long enough to be written at once, and then <!--"} {
		if got := runCapture(10, []byte(last)); got.log != last {
			t.Errorf("%q was logged as %q", last, got.log)
		}
	}
}

// FuzzCapture asks that cutting the input changes neither the log nor the events.
func FuzzCapture(f *testing.F) {
	f.Add([]byte("a"+string(captureBegin)+"b"+string(captureEnd)+"c"), uint(5))
	f.Add([]byte("<!--<!--XSUPERVISOR:BEGIN-->"+string(captureBegin)), uint(9))
	f.Fuzz(func(t *testing.T, input []byte, step uint) {
		whole := runCapture(1<<20, input)
		parted := runCapture(1<<20, slices.Collect(slices.Chunk(input, int(step%64)+1))...)
		if whole.log != parted.log || !slices.Equal(whole.events, parted.events) {
			t.Fatalf("whole %+v, in pieces %+v", whole, parted)
		}
		if n := bytes.Count(input, captureEnd); len(whole.events) > n {
			t.Fatalf("%d events of %d ends", len(whole.events), n)
		}
	})
}

func TestStripANSI(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":                      "plain",
		"\x1b[31mred\x1b[0m end":     "red end",
		"a\x1b[2;3Hb":                "ab",
		"cut off \x1b[3":             "cut off ",
		"\x1b]0;title\x07":           "\x1b]0;title\x07",
		"\x1b[1m\x1b[2mtwo\x1b[K\n":  "two\n",
		"\x1b\x1b[mescape and codes": "\x1bescape and codes",
	} {
		if got := string(stripANSI([]byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
