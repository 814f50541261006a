package task

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// takeApart stores every task of a frame that was given out before as a message of its own. Whoever had it may have done
// some of them: those that have a record are not run again.
func (w *pool) takeApart(work context.Context, f *frame) error {
	if !w.calm(work) {
		return errStopped
	}
	var mine bool
	err := retry(work, func(ctx context.Context) (err error) { mine, err = f.claim(ctx, w); return err })
	if err != nil || !mine {
		return err
	}
	all := make([]int, f.body.Len())
	for i := range all {
		all[i] = i
	}
	if err := w.storeApart(work, f, all); err != nil {
		return err
	}
	w.acknowledge(&f.lease)
	return nil
}

// spill stores what nobody has begun of a frame as messages of their own, for others.
func (w *pool) spill(work context.Context, f *frame) {
	if !f.lease.holds() {
		return // to be claimed first
	}
	tasks := w.frames.rest(f)
	if len(tasks) == 0 {
		return
	}
	err := w.storeApart(work, f, tasks)
	if err != nil {
		w.log.WarnContext(work, "tasks of a frame are left to be delivered again", "frame", f.lease.d.id, "tasks", len(tasks), "error", err)
	}
	w.discharge(work, f, tasks, err == nil)
}

// storeApart stores tasks of a frame as messages of their own, unless they are there already.
func (w *pool) storeApart(work context.Context, f *frame, tasks []int) error {
	msgs := make([]*nats.Msg, len(tasks))
	for n, i := range tasks {
		d, err := f.delivery(i)
		if err != nil {
			return err
		}
		h := d.carried()
		h[wire.HeaderApart] = []string{d.place()}
		h[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
		msgs[n] = &nats.Msg{Subject: d.subject(), Header: h, Data: d.data}
	}
	err := retry(work, func(ctx context.Context) error { return storeEach(ctx, w.conn, wire.QueueStream(w.queue), msgs) })
	step(stepApart)
	return err
}

// storeEach stores messages at once, each on condition that nothing is on its subject; what is there is stored.
func storeEach(ctx context.Context, c *bus.Conn, stream string, msgs []*nats.Msg) error {
	type answer struct {
		msg *nats.Msg
		seq uint64
		err error
	}
	answers := make(chan answer, len(msgs)) // one for each
	link := c.Link()
	for _, msg := range msgs {
		if err := c.Post(msg, func(seq uint64, _ bool, err error) { answers <- answer{msg, seq, err} }); err != nil {
			return err
		}
	}
	power := c.MustCommit(msgs[0].Subject)
	var last uint64
	for range msgs {
		select {
		case a := <-answers:
			if fault.Code(a.err) == bus.CodeWrongSequence && power { // an earlier try may have stored it, and not committed
				there, err := directGet(ctx, c, stream, a.msg.Subject)
				if err != nil {
					return err
				}
				if there != nil {
					a.seq = there.seq
				}
			} else if a.err != nil && fault.Code(a.err) != bus.CodeWrongSequence {
				return a.err
			}
			last = max(last, a.seq)
		case <-ctx.Done():
			return unanswered(msgs[0].Subject, context.Cause(ctx))
		}
	}
	if last == 0 {
		return nil // all were there, and perhaps are done by now
	}
	return c.CommitStored(ctx, msgs[0].Subject, last, link)
}
