package builtin

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/jsonscan"
)

// maxRejections is how many bad lines an answer names; the others are only counted. A hundred show any pattern and make
// an answer of some 10 KiB.
const maxRejections = 100

// rejection is one line that was not taken.
type rejection struct {
	Line   int    `json:"line"` // from 1
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// batch is a request body as it will be stored: the good lines, trimmed, each ended by a newline.
type batch struct {
	lines         []byte
	accepted      int
	parts         []part
	rejected      []rejection
	rejectedTotal int
}

// part is consecutive lines that make one frame.
type part struct{ start, end, events int }

// cut takes body apart into good lines and bad ones. It reuses body's memory for the lines, so that a body of many tiny
// lines costs no more than itself. What is stored, and in which parts, is a function of the body and maxLine alone: a
// batch that was stored in part can be resumed by any process.
func cut(body []byte, maxLine int) batch {
	b := batch{lines: body[:0], rejected: []rejection{}}
	allValid := utf8.Valid(body) // at once it is several times faster than line by line
	number := 0
	for len(body) > 0 {
		line := body
		if end := bytes.IndexByte(body, '\n'); end >= 0 {
			line, body = body[:end], body[end+1:]
		} else {
			body = nil
		}
		number++
		line = trim(line)
		switch {
		case len(line) == 0:
		case len(line) > maxLine:
			b.reject(number, "ingest/line-too-long", fmt.Sprintf("the line has %d bytes, the limit is %d", len(line), maxLine))
		case !allValid && !utf8.Valid(line):
			b.reject(number, "ingest/invalid-utf8", "the line is not UTF-8")
		case !jsonscan.Valid(line):
			b.reject(number, "ingest/invalid-json", "the line is not one JSON document")
		default:
			b.accept(line)
		}
	}
	return b
}

func (b *batch) reject(line int, code, reason string) {
	b.rejectedTotal++
	if len(b.rejected) < maxRejections {
		b.rejected = append(b.rejected, rejection{line, code, reason})
	}
}

// accept appends line, which lies at or behind the end of b.lines in the same memory.
func (b *batch) accept(line []byte) {
	start := len(b.lines)
	b.lines = append(b.lines, line...)
	// Only the body's last line may lack the newline that this overwrites; then append finds or makes room.
	b.lines = append(b.lines, '\n')
	b.accepted++
	size := len(b.lines) - start
	if n := len(b.parts); n > 0 {
		if p := &b.parts[n-1]; p.end-p.start+size <= bus.TargetFrameBytes && p.events < bus.MaxFrameEvents {
			p.end += size
			p.events++
			return
		}
	}
	b.parts = append(b.parts, part{start, start + size, 1})
}

// eachEvent calls yield with every event of p.
func (b *batch) eachEvent(p part, yield func(event []byte)) {
	lines := b.lines[p.start:p.end]
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		yield(lines[:end:end])
		lines = lines[end+1:]
	}
}

// trim cuts off the white space of JSON around a line.
func trim(line []byte) []byte {
	blank := func(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }
	for len(line) > 0 && blank(line[0]) {
		line = line[1:]
	}
	for len(line) > 0 && blank(line[len(line)-1]) {
		line = line[:len(line)-1]
	}
	return line
}
