package wire

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
)

// Headers of W3C Trace Context, https://www.w3.org/TR/trace-context/. A bare message has the two of the standard. The
// events of a frame share one message, so a frame has one HeaderTraces value for each run of events with one trace, as
// "FIRST-LAST TRACEPARENT TRACESTATE"; only traces that are sampled are in it, and at most MaxFrameTraces.
const (
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
	HeaderTraces      = "Hozo-Traces"
)

const (
	// MaxFrameTraces bounds the traces of one frame: 256 of them take 20 KiB of headers. Who samples more than every
	// sixtieth event of a full frame loses some.
	MaxFrameTraces = 256
	// maxTraceState is what the standard asks everybody to pass on.
	maxTraceState = 512
)

// Trace is where an event or a request stands in a distributed trace. The zero Trace is none.
type Trace struct {
	ID      [16]byte
	Span    [8]byte // of the hop that sent it
	Sampled bool
	State   string // tracestate, as it came
}

// NewTrace begins a trace that is sampled.
func NewTrace() Trace {
	t := Trace{Sampled: true}
	_, _ = rand.Read(t.ID[:]) // never fails, by its own documentation
	t.ID[0] |= 1              // all zeros are no id
	return t.Child()
}

// Valid reports whether t is a trace at all.
func (t Trace) Valid() bool { return t.ID != [16]byte{} && t.Span != [8]byte{} }

// Child returns the same trace with a new span.
func (t Trace) Child() Trace {
	_, _ = rand.Read(t.Span[:]) // never fails, by its own documentation
	t.Span[0] |= 1
	return t
}

// TraceID and SpanID give the ids as people and tools write them.
func (t Trace) TraceID() string { return hex.EncodeToString(t.ID[:]) }

// SpanID is the id of the span that sent this.
func (t Trace) SpanID() string { return hex.EncodeToString(t.Span[:]) }

// String gives the traceparent header.
func (t Trace) String() string {
	flags := "-00"
	if t.Sampled {
		flags = "-01"
	}
	return "00-" + t.TraceID() + "-" + t.SpanID() + flags
}

// ParseTrace reads a traceparent header with its tracestate, which is dropped when it is longer than 512 bytes or holds
// control characters. Later versions are read as the standard says.
func ParseTrace(parent, state string) (Trace, bool) {
	var t Trace
	if len(parent) < 55 || parent[2] != '-' || parent[35] != '-' || parent[52] != '-' {
		return Trace{}, false
	}
	version, flags := parent[:2], parent[53:55]
	if !lowerHex(version) || version == "ff" || !lowerHex(flags) || (version == "00" && len(parent) != 55) ||
		(len(parent) > 55 && parent[55] != '-') || !lowerHex(parent[3:35]) || !lowerHex(parent[36:52]) {
		return Trace{}, false
	}
	_, _ = hex.Decode(t.ID[:], []byte(parent[3:35])) // checked above, as the next two
	_, _ = hex.Decode(t.Span[:], []byte(parent[36:52]))
	t.Sampled = unhex(flags[1])&1 == 1
	if !t.Valid() {
		return Trace{}, false
	}
	if len(state) <= maxTraceState && !strings.ContainsFunc(state, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.State = strings.TrimSpace(state)
	}
	return t, true
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Put writes t into the headers of a bare message.
func (t Trace) Put(h map[string][]string) {
	h[HeaderTraceParent] = []string{t.String()}
	if t.State != "" {
		h[HeaderTraceState] = []string{t.State}
	}
}

// TraceOf reads the trace of a bare message.
func TraceOf(h map[string][]string) (Trace, bool) {
	parent, state := h[HeaderTraceParent], ""
	if len(parent) != 1 {
		return Trace{}, false
	}
	if states := h[HeaderTraceState]; len(states) > 0 {
		state = strings.Join(states, ",")
	}
	return ParseTrace(parent[0], state)
}

// TraceRun is a run of events of one frame that have one trace.
type TraceRun struct {
	First, Last int
	Trace       Trace
}

// String gives the value of HeaderTraces.
func (r TraceRun) String() string {
	s := strconv.Itoa(r.First) + "-" + strconv.Itoa(r.Last) + " " + r.Trace.String()
	if r.Trace.State != "" {
		s += " " + r.Trace.State
	}
	return s
}

// ParseTraceRun reads what String wrote; it reports false for anything else.
func ParseTraceRun(s string) (TraceRun, bool) {
	span, rest, _ := strings.Cut(s, " ")
	parent, state, _ := strings.Cut(rest, " ")
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return TraceRun{}, false
	}
	from, errFrom := strconv.ParseUint(first, 10, 31)
	to, errTo := strconv.ParseUint(last, 10, 31)
	t, ok := ParseTrace(parent, state)
	if errFrom != nil || errTo != nil || from > to || !ok {
		return TraceRun{}, false
	}
	return TraceRun{int(from), int(to), t}, true
}
