package keeper

import (
	"bytes"
	"regexp"
)

// maxMatchedBytes bounds the part of a line that is looked at.
const maxMatchedBytes = 64 << 10

// lineMatcher looks for the first line of a process's output that matches. It sees the output as it comes, so neither
// a rotated log nor a node that was away hides the line.
type lineMatcher struct {
	pattern *regexp.Regexp
	rest    []byte // of the line that has begun
	found   func()
}

// feed takes the next bytes and says whether a line has matched; then nothing is looked for any more.
func (m *lineMatcher) feed(p []byte) bool {
	for len(p) > 0 {
		line, after, whole := bytes.Cut(p, []byte{'\n'})
		p = after
		if room := maxMatchedBytes - len(m.rest); len(line) > room {
			line = line[:room]
		}
		if len(m.rest) > 0 || !whole {
			m.rest = append(m.rest, line...)
			line = m.rest
		}
		if !whole {
			return false
		}
		if m.pattern.Match(bytes.TrimSuffix(line, []byte{'\r'})) {
			m.found()
			return true
		}
		m.rest = m.rest[:0]
	}
	return false
}

// matchLine has the output of a process looked at, if a line of it is awaited.
func (k *Keeper) matchLine(r *record) {
	if r.spec.ReadyLine != "" && !r.line {
		pattern := regexp.MustCompile(r.spec.ReadyLine) // checkSpawn has compiled it
		r.capture.matcher = &lineMatcher{pattern: pattern, found: func() { k.lineSeen(r) }}
	}
}

// lineSeen tells that a line of the output has matched.
func (k *Keeper) lineSeen(r *record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r.line = true
	k.depositRecord(r)
	k.emitLocked(Event{Kind: EventLine, Process: k.processLocked(r)})
}
