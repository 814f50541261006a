package main

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/hozo-dev/hozo/internal/ghevents"
)

// Bodies are between these sizes, spread evenly: what a collector sends when it is busy.
const (
	minBody = 256 << 10
	maxBody = 1 << 20
)

// maxLine bounds a line of a file of events.
const maxLine = 16 << 20

// load is one round's requests, rendered before the clock starts, and the account of what they hold.
type load struct {
	bodies [][]byte
	counts []int // events in each body
	bytes  int
	ledger *ledger
}

// supply makes loads whose ids never repeat.
type supply struct {
	made  *ghevents.Generator
	lines [][]byte // of a file, nil when events are made
	next  int      // events given so far
	line  []byte
	arena []byte // of the load given last
	sizes *rand.Rand
}

// newSupply reads path, or makes events when it is empty.
func newSupply(path string) (*supply, error) {
	s := &supply{sizes: rand.New(rand.NewPCG(1, 2))}
	if path == "" {
		s.made = ghevents.New(1) // any fixed seed: every run sends the same
		return s, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open events: %w", err)
	}
	defer file.Close()
	var r io.Reader = bufio.NewReaderSize(file, 1<<20)
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(r); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if gjson.GetBytes(lines.Bytes(), "type").String() == "" {
			return nil, fmt.Errorf("%s:%d: no event with a type", path, len(s.lines)+1)
		}
		s.lines = append(s.lines, append([]byte(nil), lines.Bytes()...))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(s.lines) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return s, nil
}

// event returns the next event with its newline; it is valid until the next call.
func (s *supply) event() []byte {
	if s.made != nil {
		s.line = s.made.Next(s.line[:0])
	} else {
		s.line = ghevents.WithID(s.line[:0], s.lines[s.next%len(s.lines)], strconv.Itoa(1_000_000_000+s.next))
		s.line = append(s.line, '\n')
	}
	s.next++
	return s.line
}

// load renders the bodies of a round of about n bytes. The load before it is overwritten.
func (s *supply) load(n int) load {
	l := load{ledger: newLedger(false)}
	arena := s.arena[:0]
	if cap(arena) < n+maxBody {
		arena = make([]byte, 0, n+maxBody+maxLine)
	}
	var ends []int
	limit, inBody := s.bodySize(), 0
	for start := 0; len(arena) < n; {
		line := s.event()
		if len(arena)-start+len(line) > limit && inBody > 0 {
			ends, l.counts = append(ends, len(arena)), append(l.counts, inBody)
			start, inBody, limit = len(arena), 0, s.bodySize()
		}
		fields := gjson.GetManyBytes(line, "id", "type")
		l.ledger.add([]byte(fields[0].String()), []byte(fields[1].String()))
		arena = append(arena, line...)
		inBody++
	}
	if inBody > 0 {
		ends, l.counts = append(ends, len(arena)), append(l.counts, inBody)
	}
	start := 0
	for _, end := range ends { // only now: the arena may have moved while it grew
		l.bodies = append(l.bodies, arena[start:end:end])
		start = end
	}
	l.bytes, s.arena = len(arena), arena
	return l
}

func (s *supply) bodySize() int { return minBody + s.sizes.IntN(maxBody-minBody) }
