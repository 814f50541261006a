//go:build linux

package supervisord

import (
	"bytes"
	"strconv"
	"strings"
)

const (
	readyToken  = "READY\n"
	resultToken = "RESULT "
	// maxResultBytes bounds a listener's answer and the line before it. Answers in the field are OK and FAIL.
	maxResultBytes = 1 << 20
)

// listener is one event listener's side of the event protocol: what it writes to its stdout moves it from state to
// state. The loop owns it.
type listener struct {
	state ListenerState
	event *event // sent and not yet answered

	buf    []byte
	want   int // bytes of the answer; -1 before its RESULT line
	hooks  listenerHooks
	result []byte
}

// listenerHooks is what a listener tells.
type listenerHooks struct {
	change   func(from, to ListenerState)
	badLine  func(line []byte)     // a RESULT line that is none
	answered func(ok bool)         // after each whole answer, before the change of state
	rejected func(rejected *event) // the event is to be given to somebody again
}

func newListener(hooks listenerHooks) *listener {
	return &listener{state: ListenerAcknowledged, want: -1, hooks: hooks}
}

// send notes that an event was written to the listener.
func (l *listener) send(e *event) {
	l.state, l.event = ListenerBusy, e
}

// write takes the next piece of the listener's output.
func (l *listener) write(data []byte) {
	if l.state == ListenerUnknown {
		return
	}
	l.buf = append(l.buf, data...)
	for len(l.buf) > 0 || l.want == 0 {
		var more bool
		switch l.state {
		case ListenerAcknowledged:
			more = l.awaitReady()
		case ListenerReady:
			l.change(ListenerUnknown) // it spoke without being asked
			l.event = nil
		case ListenerBusy:
			more = l.awaitResult()
		}
		if l.state == ListenerUnknown {
			l.buf = nil
			return
		}
		if !more {
			return
		}
	}
}

func (l *listener) awaitReady() (more bool) {
	if len(l.buf) < len(readyToken) {
		return false
	}
	l.event = nil
	if !bytes.HasPrefix(l.buf, []byte(readyToken)) {
		l.change(ListenerUnknown)
		return false
	}
	l.buf = l.buf[len(readyToken):]
	l.change(ListenerReady)
	return true
}

func (l *listener) awaitResult() (more bool) {
	if l.want < 0 {
		line, rest, found := bytes.Cut(l.buf, []byte("\n"))
		if !found {
			if len(l.buf) > maxResultBytes {
				l.violate(line)
			}
			return false
		}
		n, ok := resultLength(line)
		if !ok {
			l.violate(line)
			return false
		}
		l.buf, l.want = rest, n
		return true
	}
	take := min(l.want-len(l.result), len(l.buf))
	l.result = append(l.result, l.buf[:take]...)
	l.buf = l.buf[take:]
	if len(l.result) < l.want {
		return false
	}
	ok := string(l.result) == "OK"
	e := l.event
	l.event, l.result, l.want = nil, nil, -1
	l.hooks.answered(ok)
	l.change(ListenerAcknowledged)
	if !ok && e != nil {
		l.hooks.rejected(e)
	}
	return true
}

// resultLength reads a RESULT line. Like Supervisor it looks only at what stands where the number should.
func resultLength(line []byte) (int, bool) {
	if len(line) < len(resultToken) {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(line[len(resultToken):])))
	return n, err == nil && n >= 0 && n <= maxResultBytes
}

func (l *listener) violate(line []byte) {
	l.hooks.badLine(line)
	e := l.event
	l.event = nil
	l.change(ListenerUnknown)
	if e != nil {
		l.hooks.rejected(e)
	}
}

func (l *listener) change(to ListenerState) {
	from := l.state
	l.state = to
	l.hooks.change(from, to)
}

// died gives back the event that the listener had when its process ended.
func (l *listener) died() *event {
	e := l.event
	l.event = nil
	return e
}
