package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MaxRetryLater is the longest that RetryLater puts an event aside: well within what hozo.retry keeps.
const MaxRetryLater = 72 * time.Hour

// RetryLater tells a Stage to put the event aside and to try it again after d, at most MaxRetryLater, in whichever
// instance is free. What the handler sent for it is taken back, and its neighbours go on. The event is stored in
// hozo.retry before its frame is acknowledged, and has its name and subject when it comes back; Event.Returns says how
// often it has, so that the handler can give up. Up to 4096 events of a service can be aside at once; beyond that they
// come back later than asked for.
//
// A Stage that reads in the order of keys does not put events aside, because the next one of the key would overtake them:
// it parks such an event with the fault bus/later-in-order.
func RetryLater(d time.Duration) error { return &later{min(max(d, 0), MaxRetryLater)} }

type later struct{ after time.Duration }

// errLaterInOrder refuses RetryLater where the order of keys was asked for.
var errLaterInOrder = &fault.Error{
	Code: CodeLaterInOrder, What: "the handler put an event aside that is read in the order of its key: the next one would overtake it",
	Fix: "return another error, after which the event is tried again in place, or consume without ordered: true",
}

func (l *later) Error() string { return fmt.Sprintf("to be tried again after %v", l.after) }

// putAside stores the event in hand where it comes back from, trying until it is stored or work ends. A repeat, after a
// crash before the frame was acknowledged, has the same id and is dropped.
func (w *worker) putAside(work context.Context, d time.Duration) bool {
	c, e := w.stage.conn, &w.event
	service := c.cfg.Grant.Service
	header := nats.Header{
		jetstream.MsgIDHeader: {fmt.Sprintf("later:%s:%s:%d", service, e.id, e.returns)},
		wire.HeaderSource:     {e.id.String()},
		wire.HeaderSubject:    {e.subject},
		wire.HeaderReturns:    {strconv.Itoa(e.returns + 1)},
		wire.HeaderNotUntil:   {time.Now().Add(d).UTC().Format(time.RFC3339Nano)},
	}
	maps.Copy(header, w.leaving())
	b := NewBuilder(wire.CodecZstd)
	b.Add(e.data) // it was in a frame, so it fits in one
	return w.persist(work, func() error {
		_, err := c.PublishFrame(work, wire.RetrySubject(service, e.id), header, b.Frame())
		return err
	})
}

func isLater(err error) bool {
	_, ok := errors.AsType[*later](err)
	return ok
}

// early returns how long a retried event still has to wait.
func early(h nats.Header) time.Duration {
	until, err := time.Parse(time.RFC3339Nano, h.Get(wire.HeaderNotUntil))
	if err != nil {
		return 0
	}
	// At most what can be asked for: the clock may have been set meanwhile.
	return min(time.Until(until), MaxRetryLater)
}
