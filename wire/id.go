package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// EventID names an event for life: the stream that stores it, the sequence of its frame there and its place in the
// frame, from 0.
type EventID struct {
	Stream string
	Seq    uint64
	Index  int
}

// String gives "events.raw:17:3".
func (id EventID) String() string { return fmt.Sprintf("%s:%d:%d", id.Stream, id.Seq, id.Index) }

// ParseEventID reads what String wrote and nothing else, so that one event has one name.
func ParseEventID(s string) (EventID, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 || parts[0] == "" {
		return EventID{}, fmt.Errorf("event id %q is not stream:sequence:index", s)
	}
	seq, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return EventID{}, fmt.Errorf("event id %q: sequence: %w", s, err)
	}
	index, err := strconv.Atoi(parts[2])
	if err != nil || index < 0 {
		return EventID{}, fmt.Errorf("event id %q: index %q is not a number from 0", s, parts[2])
	}
	id := EventID{parts[0], seq, index}
	if id.String() != s {
		return EventID{}, fmt.Errorf("event id %q: its numbers are not written as in %q", s, id)
	}
	return id, nil
}
