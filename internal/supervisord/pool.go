//go:build linux

package supervisord

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// pool gives events to the listeners of one [eventlistener:x]. The loop owns it.
type pool struct {
	group  *group
	buffer []*event // oldest first, at most buffer_size
	serial int      // of the last event that the pool took; -1 before the first
}

// wants is how many of the subscriptions of the pool an event matches. Like Supervisor's, a pool that subscribes to a type
// and to its parent gets such an event twice.
func (l *pool) wants(e *event) int {
	n := 0
	for _, name := range l.group.conf.Listener.Events {
		if e.kind.is(name) {
			n++
		}
	}
	return n
}

// accept takes an event for later, or, at the head, takes one back that was rejected. A full buffer loses its oldest.
func (l *pool) accept(e *event, head bool) {
	d, name := l.group.d, l.group.conf.Name
	if e.serial < 0 {
		d.serial++
		e.serial = d.serial
	}
	if _, known := e.poolSerials[name]; known {
		d.log.debug("rebuffering event %d for pool %s (buf size=%d, max=%d)", e.serial, name, len(l.buffer),
			l.group.conf.Listener.BufferSize)
	} else {
		l.serial++
		e.poolSerials[name] = l.serial
	}
	if len(l.buffer) > 0 && len(l.buffer) >= l.group.conf.Listener.BufferSize {
		d.log.error("pool %s event buffer overflowed, discarding event %d", name, l.buffer[0].serial)
		l.buffer = l.buffer[1:]
	}
	if head {
		l.buffer = append([]*event{e}, l.buffer...)
	} else {
		l.buffer = append(l.buffer, e)
	}
	d.changed()
}

// dispatch sends buffered events to listeners that are ready, oldest first.
func (l *pool) dispatch() {
	for len(l.buffer) > 0 {
		e := l.buffer[0]
		if !l.give(e) {
			return
		}
		l.buffer = l.buffer[1:]
	}
}

func (l *pool) give(e *event) bool {
	d := l.group.d
	for _, p := range l.group.procs {
		if p.state != Running || p.listener == nil || p.listener.state != ListenerReady {
			continue
		}
		if err := p.write([]byte(l.envelope(e))); err != nil {
			if errors.Is(err, unix.EPIPE) {
				d.log.debug("epipe occurred while sending event %d to listener %s, listener state unchanged", e.serial, p.conf.Name)
			} else {
				d.log.warn("event %d not sent to listener %s: %v", e.serial, p.conf.Name, err)
			}
			continue
		}
		p.listener.send(e)
		d.log.debug("event %d sent to listener %s", e.serial, p.conf.Name)
		return true
	}
	return false
}

// envelope is an event as a listener reads it. The length counts characters: listeners read it from a text stream.
func (l *pool) envelope(e *event) string {
	return fmt.Sprintf("ver:3.0 server:%s serial:%d pool:%s poolserial:%d eventname:%s len:%d\n%s",
		l.group.d.conf.Supervisord.Identifier, e.serial, l.group.conf.Name, e.poolSerials[l.group.conf.Name], e.kind,
		utf8.RuneCountInString(e.payload), e.payload)
}

// listenerHooks log what a listener does and give rejected events back to its pool.
func (p *process) listenerHooks() listenerHooks {
	log, name := p.d.log, p.conf.Name
	return listenerHooks{
		change: func(from, to ListenerState) {
			log.debug("%s: %s -> %s", name, from, to)
			if to == ListenerUnknown {
				log.warn("%s: has entered the UNKNOWN state and will no longer receive events, this usually indicates "+
					"the process violated the eventlistener protocol", name)
			}
			p.d.changed()
		},
		badLine: func(line []byte) {
			log.warn("%s: bad result line: '%s'", name, readable(line))
		},
		answered: func(ok bool) {
			if ok {
				log.debug("%s: event was processed", name)
			} else {
				log.warn("%s: event was rejected", name)
			}
		},
		rejected: func(e *event) { p.group.pool.accept(e, true) },
	}
}

// write sends data to the standard input of the process.
func (p *process) write(data []byte) error {
	if p.pid == 0 || p.killing || p.channels.stdin == nil {
		return unix.EPIPE
	}
	return p.channels.stdin.write(data)
}
