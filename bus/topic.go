package bus

import (
	"context"
	"fmt"

	"github.com/hozo-dev/hozo/wire"
)

// Topic is a subject whose events are values of T. []byte and json.RawMessage pass through as they are; any other T is
// written and read by encoding/json, unless an option names another codec. A Topic is a value; make it once, near the
// type.
type Topic[T any] struct {
	subject string
	opts    *options
}

// NewTopic names the topic of subject and, for reading, of everything below it.
func NewTopic[T any](subject string, opts ...Option) Topic[T] {
	o := optionsOf(opts)
	if _, ok := o.key.(func(T) string); o.key != nil && !ok {
		panic(fmt.Sprintf("bus: the Key of topic %s is of another type than its events", subject))
	}
	return Topic[T]{subject, &o}
}

// Subject returns the subject.
func (t Topic[T]) Subject() string { return t.subject }

// At returns the topic of the same type at subject; it serves programs that choose the subject by the event.
func (t Topic[T]) At(subject string) Topic[T] { return Topic[T]{subject, t.opts} }

// Send sends v from inside a handler: it is stored before the handler's event is acknowledged, and only if the handler
// returns nil. On a live subject it is sent when the rest is stored. The error is the fault bus/no-route or
// bus/too-large, or v's own from its codec.
func (t Topic[T]) Send(out *Out, v T) error {
	data, err := encode(t.subject, t.opts, v)
	if err != nil {
		return err
	}
	if key := keyOf(t); key != nil {
		return out.publishKey(t.subject, contentTypeOf[T](t.opts), key(v), data)
	}
	return out.publish(t.subject, contentTypeOf[T](t.opts), data)
}

// Publish stores v from outside a handler and returns its id once it is stored. Concurrent calls share frames. Errors
// are those of Publisher.Publish.
//
// On a live subject nothing is stored and nothing waited for: v is written to the connection, for whoever watches now,
// and has no id. The errors are the faults bus/unavailable and bus/too-large.
func (t Topic[T]) Publish(ctx context.Context, c *Conn, v T) (wire.EventID, error) {
	data, err := encode(t.subject, t.opts, v)
	if err != nil {
		return wire.EventID{}, err
	}
	if live := c.live(t.subject); live != nil {
		return wire.EventID{}, live.send(ctx, c, t.subject, data, t.opts.ceType, contentTypeOf[T](t.opts))
	}
	p, err := c.shared(t.subject, contentTypeOf[T](t.opts))
	if err != nil {
		return wire.EventID{}, err
	}
	if key := keyOf(t); key != nil {
		return p.PublishKey(ctx, key(v), data)
	}
	return p.Publish(ctx, data)
}
