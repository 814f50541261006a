package bus

import (
	"time"

	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// cloudEvent gives the attributes of something that this service sends.
func (c *Conn) cloudEvent(id, eventType, contentType string, at time.Time) wire.CloudEvent {
	return wire.CloudEvent{
		ID: id, Source: "/" + c.cfg.Grant.Project + "/" + c.cfg.Grant.Service, Type: eventType, Time: at, ContentType: contentType,
	}
}

// Header returns a header of the message that the event came in, or "". The events of a frame share its headers.
func (e Event[T]) Header(name string) string {
	if values := e.header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// ContentType returns the media type that came with the event, or "" when none did: then it is what the topic's codec
// writes.
func (e Event[T]) ContentType() string { return wire.ContentType(e.header) }

// CloudEvent returns the event's attributes as a CloudEvent: those that its sender put into the headers of a bare
// message, or else those that its name gives: the EventID, the stream, the subject and the time it was stored.
func (e Event[T]) CloudEvent() wire.CloudEvent {
	if ce, ok := wire.CloudEventOf(e.header); ok {
		return ce
	}
	return wire.CloudEvent{ID: e.ID.String(), Source: "/" + e.ID.Stream, Type: e.Subject, Time: e.Time, ContentType: e.ContentType()}
}

// keep returns the headers that stay with an event, or nil.
func keep(h nats.Header) nats.Header {
	var kept nats.Header
	for name, values := range h {
		if wire.Stays(name) {
			if kept == nil {
				kept = nats.Header{}
			}
			kept[name] = values
		}
	}
	return kept
}
