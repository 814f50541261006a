package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// gatherBytes and gatherAnswers bound the answers that wait for the caller of Gather.
const (
	gatherBytes   = 32 << 20
	gatherAnswers = 4096
)

// GatherConfig says when a Gather has heard enough. The zero value waits for as long as the context lasts.
type GatherConfig struct {
	Max   int           // answers after which it ends; 0: no such number
	Stall time.Duration // ends when this long after an answer there is no other; 0: never
}

// Gather asks every instance that serves the call and yields each answer as it comes; an instance that fails yields its
// fault, and the others go on. It ends after Max answers, after a Stall, or with ctx (DefaultCallTimeout when ctx has no
// deadline). Faults that end it are bus/no-responder, bus/unavailable, bus/no-call, bus/overflow (answers came faster
// than they were taken) and bus/timeout, when ctx ended before there were Max answers or any at all. Leaving the loop
// early is fine.
func (c Call[Req, Resp]) Gather(ctx context.Context, conn *Conn, req Req, cfg GatherConfig) iter.Seq2[Resp, error] {
	return func(yield func(Resp, error) bool) {
		var zero Resp
		if err := c.mayAsk(conn); err != nil {
			yield(zero, err)
			return
		}
		if _, ok := ctx.Deadline(); !ok {
			timed, cancel := context.WithTimeout(ctx, DefaultCallTimeout)
			defer cancel()
			ctx = timed
		}
		ctx, done := conn.denials.untilDenied(ctx, wire.EverySubject(c.subject))
		defer done()
		sub, err := c.scatter(ctx, conn, req)
		if err != nil {
			yield(zero, err)
			return
		}
		defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
		for got := 0; cfg.Max <= 0 || got < cfg.Max; got++ {
			msg, err := c.next(ctx, sub, got, cfg)
			if msg == nil {
				if err != nil {
					yield(zero, err)
				}
				return
			}
			if !yield(c.answer(msg)) {
				return
			}
		}
	}
}

// scatter sends the request to everybody and returns where the answers come.
func (c Call[Req, Resp]) scatter(ctx context.Context, conn *Conn, req Req) (*nats.Subscription, error) {
	header := conn.liveHeader(ctx, c.subject, c.opts.ceType, contentTypeOf[Req](c.opts))
	data, err := encode(c.subject, c.opts, req)
	if err != nil {
		return nil, err
	}
	inbox := conn.nc.NewInbox()
	sub, err := conn.nc.SubscribeSync(inbox)
	if err == nil {
		err = sub.SetPendingLimits(gatherAnswers, gatherBytes)
	}
	if err == nil {
		err = conn.nc.PublishMsg(&nats.Msg{Subject: wire.EverySubject(c.subject), Reply: inbox, Data: data, Header: header})
	}
	if err != nil {
		if sub != nil {
			_ = sub.Unsubscribe() // as above
		}
		return nil, publishFault(c.subject, err)
	}
	conn.counters.AddEdge("calls", c.subject, 1)
	return sub, nil
}

// next waits for one more answer. Neither a message nor an error means that it is enough.
func (c Call[Req, Resp]) next(ctx context.Context, sub *nats.Subscription, got int, cfg GatherConfig) (*nats.Msg, error) {
	waiting := ctx
	if cfg.Stall > 0 && got > 0 {
		stalled, cancel := context.WithTimeout(ctx, cfg.Stall)
		defer cancel()
		waiting = stalled
	}
	msg, err := sub.NextMsgWithContext(waiting)
	switch {
	case err == nil && len(msg.Data) == 0 && msg.Header.Get("Status") == strconv.Itoa(http.StatusServiceUnavailable):
		return nil, askFault(ctx, c.subject, nats.ErrNoResponders)
	case err == nil:
		return msg, nil
	case errors.Is(err, nats.ErrSlowConsumer):
		return nil, &fault.Error{
			Code: CodeOverflow, Where: c.subject, What: fmt.Sprintf("more than %d answers wait", gatherAnswers),
			Fix: "take them faster, or ask for fewer with Max",
		}
	case ctx.Err() == nil && waiting.Err() != nil:
		return nil, nil // a stall
	case ctx.Err() != nil && got > 0 && cfg.Max <= 0:
		return nil, nil // how many there are was never known
	}
	if denied := context.Cause(ctx); fault.Code(denied) == CodeDenied {
		return nil, denied
	}
	f := askFault(ctx, c.subject, err)
	if ctx.Err() != nil && got > 0 {
		f = &fault.Error{
			Code: CodeTimedOut, Where: c.subject, What: fmt.Sprintf("%d of %d answers in time", got, cfg.Max),
			Fix: "see hozo status; give it more time, or a Stall to be content with fewer", Err: cmp.Or(context.Cause(ctx), err),
		}
	}
	return nil, f
}
