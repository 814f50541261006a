package task

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// maxErrorBytes bounds the error text in a header: enough for the cause, small beside the arguments.
const maxErrorBytes = 1024

// letter is a task on its way to hozo.dlq.
type letter struct {
	delivery
	queue    string
	attempts int
	code     string
	err      string
}

// storeDead stores d under a subject of its own, once for ever: a second time is refused by the broker and is no error.
func storeDead(ctx context.Context, c *bus.Conn, d letter) error {
	id := d.origin(wire.QueueStream(d.queue))
	header := nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {"0"},
		wire.HeaderSource:                   {id.String()},
		wire.HeaderTaskID:                   {d.id},
		wire.HeaderSubject:                  {d.subject()},
		wire.HeaderCode:                     {d.code},
		wire.HeaderError:                    {oneLine(d.err)},
		wire.HeaderAttempts:                 {strconv.Itoa(d.attempts)},
		wire.HeaderCopy:                     {strconv.Itoa(d.copy)},
		wire.HeaderTime:                     {time.Now().UTC().Format(time.RFC3339Nano)},
	}
	for name, values := range d.msg.Header {
		if wire.Stays(name) {
			header[name] = values
		}
	}
	_, err := c.PublishFrame(ctx, wire.DeadSubject(c.Grant().Service, id), header, d.data)
	switch {
	case err == nil:
		c.Counters().Parked.Add(1)
		return nil
	case fault.Code(err) == bus.CodeWrongSequence:
		return nil // stored by an earlier delivery, or by a try whose answer was lost
	default:
		return fmt.Errorf("store dead task %s: %w", d.id, err)
	}
}

// Revived makes the message that queues a dead task again, under its own id, of its letter's headers and data.
func Revived(letter nats.Header, data []byte) *nats.Msg {
	back := nats.NewMsg(letter.Get(wire.HeaderSubject))
	back.Data = data
	for name, values := range letter {
		if wire.Stays(name) {
			back.Header[name] = values
		}
	}
	number, err := strconv.Atoi(letter.Get(wire.HeaderCopy))
	if err != nil {
		number = 1 // buried as it was enqueued
	}
	back.Header.Set(wire.HeaderCopy, strconv.Itoa(number+1)) // else its record says that it is dead
	return back
}

// oneLine makes text fit for a header.
func oneLine(text string) string {
	if len(text) > maxErrorBytes {
		text = text[:maxErrorBytes] + "…"
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.ToValidUTF8(text, " ")
}
