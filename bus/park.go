package bus

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxErrorBytes bounds the error text in a parked record's header: enough for the cause, small beside the event.
const maxErrorBytes = 1024

// Parked is an event that could not be handled, with what is known about why.
type Parked struct {
	Event    wire.EventID // where it was first stored
	Subject  string       // on which
	Data     []byte
	Err      error // why; its fault code becomes the record's
	Attempts int
	Header   nats.Header // of the message that it came in; CloudEvents attributes, content type and trace are kept

	id string // of the dead letter, for the duplicate window; empty where nobody else can park the same event
}

// Park stores p in the stream hozo.dlq under a subject of its own, once for ever: parking the same event again does
// nothing and returns nil. It tries until ctx ends while the broker is away; the errors are the faults bus/unavailable,
// bus/stream-full and bus/store-full.
//
// Data too large for a message is stored as a compressed frame of one event, which OpenFrame reads. If it does not fit
// even so, the record holds no data: the event itself stays in its stream, under the name that the record carries.
func (c *Conn) Park(ctx context.Context, p Parked) error {
	if p.Err == nil {
		p.Err = fmt.Errorf("parked without a reason")
	}
	header := nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {"0"},
		wire.HeaderSource:                   {p.Event.String()},
		wire.HeaderSubject:                  {p.Subject},
		wire.HeaderCode:                     {codeOf(p.Err)},
		wire.HeaderError:                    {oneLine(p.Err.Error())},
		wire.HeaderAttempts:                 {strconv.Itoa(p.Attempts)},
		wire.HeaderTime:                     {time.Now().UTC().Format(time.RFC3339Nano)},
	}
	c.cloudEvent(p.Event.String(), p.Subject, "", time.Now()).Put(header)
	maps.Copy(header, keep(p.Header))
	subject := wire.DeadSubject(c.cfg.Grant.Service, p.Event)
	if p.id != "" {
		header[jetstream.MsgIDHeader] = []string{p.id}
	}
	ack, err := c.PublishFrame(ctx, subject, header, c.fitting(p.Data))
	switch fault.Code(err) {
	case "": // stored
		if err != nil {
			return err
		}
		if !ack.Duplicate {
			c.counters.Parked.Add(1)
		}
	case CodeWrongSequence: // parked already, by an earlier delivery or a try whose answer was lost
	default:
		return fmt.Errorf("park %s: %w", p.Event, err)
	}
	return nil
}

// fitting returns data in a form that fits in a message.
func (c *Conn) fitting(data []byte) []byte {
	limit := c.maxEventBytes()
	if len(data) <= limit {
		return data
	}
	b := NewBuilder(wire.CodecZstd)
	if b.Add(data) {
		if frame := b.Frame(); len(frame) <= limit {
			return frame
		}
	}
	return nil
}

// oneLine makes text fit for a header.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxErrorBytes {
		cut := maxErrorBytes
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	return strings.TrimSpace(text)
}
