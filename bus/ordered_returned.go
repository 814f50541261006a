package bus

import (
	"context"

	"github.com/hozo-dev/hozo/wire"
)

// takeReturned handles the events of an ordered source that come back after they were parked. They have lost their place
// in the order; but each is handled by the owner of its partition, while no other event of the partition is.
func (r *ordered) takeReturned(ctx, work context.Context) {
	s := r.stage
	if s.retry == nil {
		return
	}
	f := feed{
		stream: s.retry.Stream, js: wire.StreamName(s.retry.Stream), durable: s.retry.Durable,
		bytes: retryInFlightBytes, window: func() int { return 1 },
	}
	if !s.conn.awaitConsumer(ctx, s.log, f.js, f.durable) {
		return
	}
	p := newPuller(s.conn, f.js, f.durable, f.bytes, f.window)
	defer func() {
		for _, msg := range p.close(context.WithoutCancel(ctx)) {
			_ = s.conn.nc.Publish(msg.Reply, []byte("-NAK"))
		}
	}()
	for {
		msg, err := p.next(ctx)
		if err != nil {
			return // asked to stop, or the connection is closed
		}
		h, err := s.held.add(p, &f, msg)
		if err != nil || h == nil {
			continue
		}
		switch {
		case ctx.Err() != nil:
			s.giveBack(h)
		case !r.handleReturned(work, h):
			s.held.end(s.conn, h, notMine)
		default:
			s.held.end(s.conn, h, "+ACK")
		}
	}
}

// handleReturned handles one event. It reports false when the event is for another Stage or another process.
func (r *ordered) handleReturned(work context.Context, h *held) bool {
	s := r.stage
	f := &Frame{
		Stream: h.feed.stream, Subject: h.msg.Subject, Header: h.msg.Header,
		Seq: h.meta.Sequence.Stream, Time: h.meta.Timestamp,
	}
	if f.Header != nil {
		f.content = wire.ContentType(f.Header)
	}
	if err := f.parse(h.msg.Data); err != nil || f.decodeFramed() != nil {
		id, subject := retried(f)
		w := newWorker(s)
		return w.park(work, Parked{Event: id, Subject: subject, Data: h.msg.Data, Err: f.bad(err), Attempts: 1})
	}
	if !s.owns(f) {
		return false
	}
	l := r.own.lease(partitionOf(r.key(f, 0), s.source.Partitions))
	if l == nil {
		return false
	}
	return r.turn(l, func(w *worker) bool {
		done := r.handle(l, w, f, h, nil) && r.store(l, w.out, w.out.messages(), false)
		if done {
			w.out.count()
			s.conn.counters.EventsIn.Add(1)
			s.conn.counters.addConsumed(s.source.Stream, f, 1)
			s.conn.counters.BytesIn.Add(uint64(f.eventBytes()))
		}
		return done
	})
}
