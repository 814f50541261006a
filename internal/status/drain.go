package status

import (
	"fmt"
	"maps"
	"time"
)

// Drain follows the snapshots of a project until its streams are drained: every stored message is read and acknowledged,
// and nothing is on its way from one stream to the next. One snapshot cannot tell: the broker is asked about one stream
// after the other, so an event on its way may be behind nobody, and what it said may be from before the question. The
// zero Drain is ready. It is for one goroutine.
type Drain struct {
	asked  time.Time         // of the newest answers that were looked at
	idle   map[string]uint64 // last sequences by stream when nobody was behind; nil when somebody was
	behind string
}

// Behind takes the next snapshot and says who is behind, or "" once the streams are drained. That takes three answers of
// the broker: the first may be from before the call, and between the two others, of which neither shows anybody behind,
// no stream must have got a message. What was on its way meanwhile would have been behind somebody in the first of the
// two, or stored by the second.
func (d *Drain) Behind(s Snapshot) string {
	switch {
	case s.Asked.IsZero():
		d.idle, d.behind = nil, "the broker has not answered about every stream"
	case !s.Asked.Equal(d.asked):
		first := d.asked.IsZero()
		d.asked = s.Asked
		d.look(s, first)
	}
	return d.behind
}

func (d *Drain) look(s Snapshot, first bool) {
	before := d.idle
	d.idle = nil
	if d.behind = firstBehind(s); d.behind != "" || len(s.Streams) == 0 {
		return
	}
	d.behind = "events may be on their way between streams"
	if first {
		return
	}
	d.idle = map[string]uint64{}
	for _, stream := range s.Streams {
		d.idle[stream.Name] = stream.LastSeq
	}
	if before != nil && maps.Equal(before, d.idle) {
		d.behind = ""
	}
}

// firstBehind names a reader that has not read everything, or "".
func firstBehind(s Snapshot) string {
	for _, stream := range s.Streams {
		for _, c := range stream.Consumers {
			if behind := c.Lag + uint64(c.InFlight); behind > 0 {
				return fmt.Sprintf("%s is %d frames behind in %s", c.Service, behind, stream.Name)
			}
		}
	}
	return ""
}
