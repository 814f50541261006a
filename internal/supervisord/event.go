//go:build linux

package supervisord

import (
	"fmt"
	"strings"
)

// eventKind is the name of an event's type, as in the events= line of a listener.
type eventKind string

const (
	eventProcessState   = "PROCESS_STATE"
	eventSupervisorUp   = "SUPERVISOR_STATE_CHANGE_RUNNING"
	eventSupervisorDown = "SUPERVISOR_STATE_CHANGE_STOPPING"
	eventRemote         = "REMOTE_COMMUNICATION"
	eventGroupAdded     = "PROCESS_GROUP_ADDED"
	eventGroupRemoved   = "PROCESS_GROUP_REMOVED"
	eventTick           = "TICK_"
	eventLog            = "PROCESS_LOG_"
	eventCapture        = "PROCESS_COMMUNICATION_"
)

// is says whether an event of kind k reaches a subscriber of want: a name also stands for everything below it, and EVENT
// for all.
func (k eventKind) is(want string) bool {
	return want == "EVENT" || string(k) == want || strings.HasPrefix(string(k), want+"_")
}

// event is something that listeners are told. The payload is fixed when it happens, so that it tells the pid of then.
type event struct {
	kind    eventKind
	payload string

	serial      int            // of all events that any pool took; -1 until one does
	poolSerials map[string]int // by pool
}

func newEvent(kind eventKind, payload string) *event {
	return &event{kind: kind, payload: payload, serial: -1, poolSerials: map[string]int{}}
}

// stateEvent tells that p has left the state from for the one it is in.
func stateEvent(p *process, from State, expected bool) *event {
	payload := fmt.Sprintf("processname:%s groupname:%s from_state:%s", p.conf.Name, p.group.conf.Name, from)
	switch p.state {
	case Starting, Backoff:
		payload += fmt.Sprintf(" tries:%d", p.backoff)
	case Exited:
		n := 0
		if expected {
			n = 1
		}
		payload += fmt.Sprintf(" expected:%d pid:%d", n, p.pid)
	case Running, Stopping, Stopped:
		payload += fmt.Sprintf(" pid:%d", p.pid)
	}
	return newEvent(eventKind(eventProcessState+"_"+p.state.String()), payload)
}

// logEvent tells a piece of a channel's output.
func logEvent(p *process, channel string, pid int, data []byte) *event {
	return newEvent(eventKind(eventLog+strings.ToUpper(channel)),
		fmt.Sprintf("processname:%s groupname:%s pid:%d channel:%s\n%s", p.conf.Name, p.group.conf.Name, pid, channel, readable(data)))
}

// captureEvent tells what a process wrote between the two tokens.
func captureEvent(p *process, channel string, pid int, data []byte) *event {
	return newEvent(eventKind(eventCapture+strings.ToUpper(channel)),
		fmt.Sprintf("processname:%s groupname:%s pid:%d\n%s", p.conf.Name, p.group.conf.Name, pid, readable(data)))
}

func groupEvent(kind eventKind, group string) *event { return newEvent(kind, "groupname:"+group+"\n") }

func remoteEvent(kind, data string) *event {
	return newEvent(eventRemote, "type:"+kind+"\n"+data)
}
