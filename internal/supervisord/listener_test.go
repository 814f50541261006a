//go:build linux

package supervisord

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// heard is a listener with a record of what it told.
type heard struct {
	*listener
	told []string
}

func newHeard() *heard {
	h := &heard{}
	h.listener = newListener(listenerHooks{
		change:   func(from, to ListenerState) { h.told = append(h.told, fmt.Sprintf("%s>%s", from, to)) },
		badLine:  func(line []byte) { h.told = append(h.told, "bad "+string(line)) },
		answered: func(ok bool) { h.told = append(h.told, fmt.Sprint("ok ", ok)) },
		rejected: func(*event) { h.told = append(h.told, "rejected") },
	})
	return h
}

func TestListenerFollowsTheProtocol(t *testing.T) {
	t.Parallel()
	// "!" stands for an event that is sent.
	for name, c := range map[string]struct{ say, want string }{
		"answers OK":          {"READY\n!RESULT 2\nOKREADY\n", "ACKNOWLEDGED>READY ok true BUSY>ACKNOWLEDGED ACKNOWLEDGED>READY"},
		"answers FAIL":        {"READY\n!RESULT 4\nFAIL", "ACKNOWLEDGED>READY ok false BUSY>ACKNOWLEDGED rejected"},
		"answers nothing":     {"READY\n!RESULT 0\n", "ACKNOWLEDGED>READY ok false BUSY>ACKNOWLEDGED rejected"},
		"is not ready":        {"HELLO, I AM!", "ACKNOWLEDGED>UNKNOWN"},
		"is too short":        {"READ", ""},
		"talks while ready":   {"READY\nx", "ACKNOWLEDGED>READY READY>UNKNOWN"},
		"is ready twice":      {"READY\nREADY\n", "ACKNOWLEDGED>READY READY>UNKNOWN"},
		"answers no number":   {"READY\n!RESULT x\nOK", "ACKNOWLEDGED>READY bad RESULT x BUSY>UNKNOWN rejected"},
		"answers below zero":  {"READY\n!RESULT -1\nOK", "ACKNOWLEDGED>READY bad RESULT -1 BUSY>UNKNOWN rejected"},
		"answers garbage":     {"READY\n!\n", "ACKNOWLEDGED>READY bad  BUSY>UNKNOWN rejected"},
		"other word, counted": {"READY\n!RUSULT 2\nOK", "ACKNOWLEDGED>READY ok true BUSY>ACKNOWLEDGED"},
		"never ends its line": {"READY\n!" + strings.Repeat("x", maxResultBytes+1), "ACKNOWLEDGED>READY bad " + strings.Repeat("x", maxResultBytes+1) + " BUSY>UNKNOWN rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHeard()
			for i, piece := range strings.Split(c.say, "!") {
				if i > 0 {
					if h.state != ListenerReady {
						break
					}
					h.send(newEvent("TICK_5", ""))
				}
				h.write([]byte(piece))
			}
			if got := strings.Join(h.told, " "); got != c.want {
				t.Errorf("told %.200q, want %.200q", got, c.want)
			}
		})
	}
}

func TestListenerThatDiesGivesItsEventBack(t *testing.T) {
	t.Parallel()
	h := newHeard()
	h.write([]byte("READY\n"))
	e := newEvent("TICK_5", "")
	h.send(e)
	h.write([]byte("RESULT 2\nO"))
	if got := h.died(); got != e {
		t.Errorf("gave back %v", got)
	}
	if got := h.died(); got != nil {
		t.Errorf("gave back %v a second time", got)
	}
}

// FuzzListener asks that nothing a listener writes breaks the daemon, that an event is given back once at most, and that
// cutting the output changes nothing.
func FuzzListener(f *testing.F) {
	f.Add([]byte("READY\nRESULT 2\nOKREADY\n"), uint(3))
	f.Add([]byte("READY\nRESULT 99999999999999999999\nOK"), uint(1))
	f.Add([]byte("READY\nRESULT 4\nFAILREADY\nRESULT 0\n\n"), uint(2))
	f.Fuzz(func(t *testing.T, said []byte, step uint) {
		run := func(size int) []string {
			h := newHeard()
			if ready := []byte(readyToken); len(said) >= len(ready) && string(said[:len(ready)]) == readyToken {
				h.write(ready)
				h.send(newEvent("TICK_5", ""))
				for piece := range slices.Chunk(said[len(ready):], size) {
					h.write(piece)
				}
			} else {
				h.write(said)
			}
			return h.told
		}
		whole, parted := run(len(said)+1), run(int(step%16)+1)
		if !slices.Equal(whole, parted) {
			t.Fatalf("whole %q, in pieces %q", whole, parted)
		}
		given := 0
		for _, s := range whole {
			if s == "rejected" {
				given++
			}
		}
		if given > 1 {
			t.Fatalf("one event was given back %d times", given)
		}
	})
}
