package bus

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Topic is a subject whose events are values of T. []byte and json.RawMessage pass through as they are; any other T is
// written and read by encoding/json. A Topic is a value; make it once, near the type.
type Topic[T any] struct{ subject string }

// NewTopic names the topic of subject and, for reading, of everything below it.
func NewTopic[T any](subject string) Topic[T] { return Topic[T]{subject} }

// Subject returns the subject.
func (t Topic[T]) Subject() string { return t.subject }

// At returns the topic of the same type at subject; it serves programs that choose the subject by the event.
func (t Topic[T]) At(subject string) Topic[T] { return Topic[T]{subject} }

// Send sends v from inside a handler: it is stored before the handler's event is acknowledged, and only if the handler
// returns nil. On a live subject it is sent when the rest is stored. The error is the fault bus/no-route or bus/too-large, or v's own from encoding/json.
func (t Topic[T]) Send(out *Out, v T) error {
	data, err := encode(t.subject, v)
	if err != nil {
		return err
	}
	return out.Publish(t.subject, data)
}

// Publish stores v from outside a handler and returns its id once it is stored. Concurrent calls share frames. Errors
// are those of Publisher.Publish.
//
// On a live subject nothing is stored and nothing waited for: v is written to the connection, for whoever watches now,
// and has no id. The errors are the faults bus/unavailable and bus/too-large.
func (t Topic[T]) Publish(ctx context.Context, c *Conn, v T) (wire.EventID, error) {
	data, err := encode(t.subject, v)
	if err != nil {
		return wire.EventID{}, err
	}
	if live := c.live(t.subject); live != nil {
		return wire.EventID{}, live.send(c, t.subject, data)
	}
	p, err := c.shared(t.subject)
	if err != nil {
		return wire.EventID{}, err
	}
	return p.Publish(ctx, data)
}

func encode[T any](subject string, v T) ([]byte, error) {
	switch b := any(v).(type) {
	case []byte:
		return b, nil
	case json.RawMessage:
		return b, nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode event for %s: %w", subject, err)
	}
	return data, nil
}

// decode fills *v from data. []byte and json.RawMessage alias data.
func decode[T any](data []byte, v *T) error {
	switch p := any(v).(type) {
	case *[]byte:
		*p = data
	case *json.RawMessage:
		*p = data
	default:
		if err := json.Unmarshal(data, v); err != nil {
			return &fault.Error{
				Code: CodeDecode, What: fmt.Sprintf("the event is no %T", *v), Err: err,
				Fix: "correct the producer, or the type of the topic",
			}
		}
	}
	return nil
}
