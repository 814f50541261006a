package bus

import (
	"context"
	"errors"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// Event is what a handler gets.
type Event[T any] struct {
	ID      wire.EventID // of the event where it was first stored; a retried event keeps it
	Subject string       // where it was first stored
	Time    time.Time    // when the broker stored it
	Attempt int          // from 1, within this delivery
	Returns int          // how often RetryLater has put it aside before
	Data    []byte       // as stored; valid until the handler returns
	Value   T            // decoded; when T is []byte or json.RawMessage it is Data

	header nats.Header // of the message
}

// HandlerFunc handles one event. It returns nil when the event is done with, Drop to forget it, Reject(…) to park it at
// once, or any other error to have it tried again. It may be called for the same event more than once. ctx ends when
// the event's time is over, or when the process has been stopping for longer than the Stage's Drain.
type HandlerFunc[T any] func(ctx context.Context, e Event[T], out *Out) error

// Drop tells a Stage to acknowledge the event and forget it, its output included. Dropped events are counted.
var Drop = errors.New("drop this event")

// Reject tells a Stage that trying again is useless: the event is parked at once under code, or under err's own code
// when code is empty.
func Reject(code string, err error) error {
	if err == nil {
		err = errors.New("rejected")
	}
	if code == "" {
		code = codeOf(err)
	}
	return &rejection{code, err}
}

type rejection struct {
	code string
	err  error
}

func (r *rejection) Error() string { return r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

// permanent reports whether err says that trying again is useless.
func permanent(err error) bool {
	if _, ok := errors.AsType[*rejection](err); ok {
		return true
	}
	switch fault.Code(err) {
	case CodeDecode, CodeTooLarge, CodeNoRoute:
		return true
	}
	return false
}

// codeOf gives the code that an event is parked under because of err.
func codeOf(err error) string {
	if r, ok := errors.AsType[*rejection](err); ok {
		return r.code
	}
	if code := fault.Code(err); code != "" {
		return code
	}
	return CodeHandler
}
