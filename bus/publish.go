package bus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	retryFirst = 50 * time.Millisecond // between tries to store a message
	retryMost  = time.Second
)

// PublishFrame stores one message on subject and returns the broker's acknowledgement; a Duplicate one counts as
// success. frame is any payload: a frame, or one event of a stream without frames. The header may be nil and is not
// changed. When the message carries an id or an expected sequence, a broker that is away or does not answer is asked
// again until ctx ends; otherwise there is one try. The errors are the faults bus/unavailable, bus/stream-full,
// bus/store-full, bus/no-route, bus/too-large and bus/wrong-sequence. A message that a full stream with the policy
// drop_newest drops is acknowledged with sequence 0; one with an expected sequence is not dropped but refused.
func (c *Conn) PublishFrame(
	ctx context.Context, subject string, h nats.Header, frame []byte, opts ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	if err := c.mayPublish(subject); err != nil {
		return nil, err
	}
	msg := &nats.Msg{Subject: subject, Header: maps.Clone(h), Data: frame}
	if msg.Header == nil {
		msg.Header = make(nats.Header)
	}
	for attempt := 0; ; attempt++ {
		ack, err := c.publishOnce(ctx, msg, opts)
		if err == nil {
			return ack, nil
		}
		if c.drops(subject, err) && !conditional(msg.Header) {
			return &jetstream.PubAck{}, nil
		}
		if !retryable(err) || !repeatable(msg.Header) {
			return nil, err
		}
		if !sleep(ctx, retryDelay(attempt)) {
			return nil, ended(ctx, subject, err)
		}
	}
}

// repeatable reports whether storing the message twice is impossible.
func repeatable(h nats.Header) bool {
	return len(h[jetstream.MsgIDHeader]) > 0 || len(h[jetstream.ExpectedLastSubjSeqHeader]) > 0 ||
		len(h[jetstream.ExpectedLastSeqHeader]) > 0
}

// mayPublish checks subject against the grant. Parked events go to the one place that every service may write to.
func (c *Conn) mayPublish(subject string) error {
	g := c.cfg.Grant
	if wire.Covers(wire.DeadStream+"."+g.Service+".>", subject) || wire.Covers(wire.RetryStream+"."+g.Service+".>", subject) {
		return nil
	}
	for _, kind := range slices.Concat(g.Enqueues, g.Handles) {
		if wire.Covers(wire.RecordStream+".*."+wire.StreamName(kind)+".*", subject) || wire.Covers(wire.FlowSubject("*"), subject) {
			return nil
		}
		if tasks := wire.TaskStream + "." + wire.StreamName(g.QueueOf(kind).Name); wire.Covers(tasks+".*."+wire.StreamName(kind)+".>", subject) {
			return nil
		}
	}
	r, err := c.route(subject)
	if err != nil || r.Partitions == 0 {
		return err
	}
	if _, p, _ := wire.SplitSubject(r.Stream, subject); p < 0 {
		return &fault.Error{
			Code: CodeNoKey, Where: subject, What: fmt.Sprintf("stream %s has a key, and this message names no partition", r.Stream),
			Fix: "publish with a Publisher, a Topic or an Out, or on the subject that wire.PartitionSubject gives",
		}
	}
	return nil
}

func (c *Conn) publishOnce(ctx context.Context, msg *nats.Msg, opts []jetstream.PublishOpt) (*jetstream.PubAck, error) {
	link := c.Link()
	future, err := c.send(msg, opts...)
	if err != nil {
		return nil, publishFault(msg.Subject, err)
	}
	ack, err := c.await(ctx, future)
	if err != nil {
		return nil, err
	}
	if js, must := c.commitsOn(msg.Subject); must {
		if err := c.commit(ctx, js, ack.Sequence, link); err != nil {
			return nil, err
		}
	}
	return ack, nil
}

// send starts to store msg. The message's bytes are not read after it returns: retrying is left to the callers here.
func (c *Conn) send(msg *nats.Msg, opts ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	all := make([]jetstream.PublishOpt, 0, len(opts)+2)
	all = append(all, opts...)
	all = append(all, jetstream.WithRetryAttempts(0), jetstream.WithStallWait(ackTimeout))
	return c.js.PublishMsgAsync(msg, all...)
}

// await waits for the acknowledgement of a sent message, or for the broker's refusal of its subject.
func (c *Conn) await(ctx context.Context, future jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	for {
		more, denied := c.denials.of(future.Msg().Subject)
		if denied != nil {
			return nil, denied
		}
		select {
		case ack := <-future.Ok():
			return ack, nil
		case err := <-future.Err():
			return nil, publishFault(future.Msg().Subject, err)
		case <-more:
		case <-ctx.Done():
			return nil, ended(ctx, future.Msg().Subject, nil)
		}
	}
}

func retryDelay(attempt int) time.Duration {
	return min(retryFirst<<min(attempt, 10), retryMost)
}

// storeAll stores messages that carry ids, trying until every one is acknowledged or ctx ends. It tells blocked about
// every try after which some are left. The messages' bytes must stay as they are until it returns.
func (c *Conn) storeAll(ctx context.Context, msgs []*nats.Msg, blocked func(error), dropped func(*nats.Msg)) error {
	left := msgs
	for attempt := 0; len(left) > 0; attempt++ {
		var err error
		if left, err = c.storeOnce(ctx, left, dropped, nil); len(left) == 0 {
			break
		}
		if ctx.Err() != nil {
			return err
		}
		blocked(err)
		if !sleep(ctx, retryDelay(attempt)) {
			return ended(ctx, left[0].Subject, err)
		}
	}
	return nil
}

// storeOnce sends every message once and returns those that were not acknowledged, with why, but for those that their
// stream's policy drops. stored, which may be nil, is told the sequences of the others.
func (c *Conn) storeOnce(
	ctx context.Context, msgs []*nats.Msg, dropped func(*nats.Msg), stored func(*nats.Msg, uint64),
) (left []*nats.Msg, err error) {
	type sent struct {
		msg    *nats.Msg
		future jetstream.PubAckFuture
		bytes  int64
	}
	var out []sent
	link := c.Link()
	settle := func() {
		batch := powerBatch{conn: c, link: link}
		for _, s := range out {
			switch ack, e := c.await(ctx, s.future); {
			case e == nil:
				batch.add(s.msg, ack.Sequence)
				if stored != nil {
					stored(s.msg, ack.Sequence)
				}
			case c.drops(s.msg.Subject, e):
				dropped(s.msg)
			default:
				left, err = append(left, s.msg), worse(err, e)
			}
			c.outWindow.Release(s.bytes)
		}
		out = out[:0]
		lost, e := batch.commit(ctx)
		if left = append(left, lost...); e != nil {
			err = worse(err, e)
		}
	}
	for _, msg := range msgs {
		bytes := min(int64(msg.Size()), outWindowBytes)
		if !c.outWindow.TryAcquire(bytes) {
			settle() // nobody waits for room while it holds some: two could wait for each other
			if e := c.outWindow.Acquire(ctx, bytes); e != nil {
				left, err = append(left, msg), worse(err, ended(ctx, msg.Subject, nil))
				continue
			}
		}
		future, e := c.send(msg)
		if e != nil {
			c.outWindow.Release(bytes)
			left, err = append(left, msg), worse(err, publishFault(msg.Subject, e))
			continue
		}
		out = append(out, sent{msg, future, bytes})
	}
	settle()
	return left, err
}

// worse picks the error to tell: a full stream says more than a broker that is away.
func worse(a, b error) error {
	if a == nil || (fault.Code(a) == CodeUnavailable && fault.Code(b) != CodeUnavailable) {
		return b
	}
	return a
}
