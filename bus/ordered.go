package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// orderedWindow is how many frames of one partition are read ahead. An instance may have all partitions, and frames of a
// busy stream have up to some 80 KiB.
const orderedWindow = 8

// ordered is how a Stage reads a source in the order of its keys: each partition by one process at a time and frame by
// frame, the next one when the output of the last one is stored.
type ordered struct {
	stage *Stage
	own   *ownership
	slots chan struct{} // one a worker: frames whose events are being handled
	spare sync.Pool     // *worker
}

// runOrdered is Run for a source that is read in the order of keys.
func (s *Stage) runOrdered(ctx context.Context) error {
	work, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	r := &ordered{stage: s, slots: make(chan struct{}, s.cfg.Workers)}
	r.spare.New = func() any { return newWorker(s) }
	r.own = newOwnership(s.conn, s.source, s.log, r.partition, sync.OnceFunc(func() { close(s.ready) }))
	s.conn.counters.addWorkers(s.cfg.Workers)
	defer s.conn.counters.addWorkers(-s.cfg.Workers)

	var beside sync.WaitGroup
	rest, end := context.WithCancel(work)
	beside.Go(func() { r.takeReturned(ctx, work) })
	beside.Go(func() { s.held.keepAlive(rest, s.conn) })
	beside.Go(func() {
		select {
		case <-ctx.Done():
		case <-rest.Done():
		}
		if sleep(rest, s.cfg.Drain) {
			abandon(drained(s.cfg.Drain))
		}
	})
	err := r.own.run(ctx, work)
	end()
	beside.Wait()
	if err != nil {
		return fmt.Errorf("stage %s: %w", s.subject, err)
	}
	return nil
}

func drained(after time.Duration) error {
	return &fault.Error{Code: CodeTimeout, What: fmt.Sprintf("stopped: the drain of %v is over", after)}
}

// partition works on one partition until its lease ends.
func (r *ordered) partition(l *lease) {
	s := r.stage
	after, ok := r.begin(l)
	if !ok {
		return
	}
	f, err := s.conn.follow(l.take, s.source.Readers()[l.p], after, following{window: orderedWindow, may: l.valid, memory: true})
	if err != nil {
		if l.take.Err() == nil {
			s.log.Warn("a partition cannot be read", "partition", l.p, "error", err)
		}
		return
	}
	defer f.Close()
	l.mu.Lock()
	l.committed = func(seq uint64) { _ = f.Commit(l.work, seq) } // advice: the record counts
	l.mu.Unlock()
	if s.collect != nil {
		r.collectPartition(l, f, after)
		return
	}
	sick := newSickKeys(s.keyOf)
	for {
		frame, err := f.Next(l.take)
		if l.take.Err() != nil {
			return
		}
		if err != nil && frame == nil {
			s.log.Warn("a partition cannot be read any further", "partition", l.p, "error", err)
			return // another claim, here or elsewhere, begins anew
		}
		if !r.turn(l, func(w *worker) bool { return r.frame(l, w, frame, err, sick) }) {
			return
		}
	}
}

// begin raises the fences and says after which sequence to read.
func (r *ordered) begin(l *lease) (after uint64, ok bool) {
	for attempt := 0; ; attempt++ {
		after, err := r.position(l)
		if err == nil {
			l.turn.Lock()
			err = l.raise(l.take, r.own.targets)
			l.turn.Unlock()
		}
		if err == nil {
			return after, true
		}
		if l.take.Err() != nil || !sleep(l.take, retryDelay(attempt)) {
			return 0, false
		}
		r.stage.log.Info("waiting for a partition", "partition", l.p, "error", err)
	}
}

// position is the sequence up to which a partition is done. Beside the record that is what its consumer starts at, where
// the service read without order before, and the end of a stream that has lost its tail.
func (r *ordered) position(l *lease) (uint64, error) {
	js := r.stage.conn.js
	src := r.stage.source.Readers()[l.p]
	stream, err := js.Stream(l.take, wire.StreamName(src.Stream))
	if err != nil {
		return 0, fmt.Errorf("look up stream %s: %w", src.Stream, err)
	}
	info := stream.CachedInfo()
	l.mu.Lock()
	defer l.mu.Unlock()
	done := l.rec.Done
	if !l.rec.Created.Equal(info.Created) {
		if !l.rec.Created.IsZero() {
			r.stage.log.Warn("the stream was made anew: it is read from its start", "code", CodeStreamReset, "partition", l.p)
		}
		done, l.rec.State, l.rec.GivenUp, l.inherited = 0, nil, nil, nil
	}
	l.tail = info.State.LastSeq
	consumer, err := stream.Consumer(l.take, src.Durable)
	switch {
	case err == nil:
		at := consumer.CachedInfo()
		done = max(done, at.AckFloor.Stream)
		if at.Config.OptStartSeq > 0 {
			done = max(done, at.Config.OptStartSeq-1)
		}
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return 0, fmt.Errorf("look up consumer %s: %w", src.Durable, err)
	}
	done = min(done, info.State.LastSeq)
	l.rec.Created, l.rec.Done = info.Created, done
	l.done.Store(done)
	return done, nil
}

// turn calls fn while nothing else is worked on in the partition, and only while the lease is good.
func (r *ordered) turn(l *lease, fn func(*worker) bool) bool {
	l.turn.Lock()
	defer l.turn.Unlock()
	w := r.spare.Get().(*worker)
	defer r.spare.Put(w)
	return l.valid() && fn(w)
}

// frame sees one frame through until its output is stored. It reports false when the lease or the work ended first.
func (r *ordered) frame(l *lease, w *worker, f *Frame, bad error, sick *sickKeys) bool {
	s := r.stage
	h := &held{feed: &feed{stream: s.source.Stream, js: wire.StreamName(s.source.Stream)}}
	if f.Header != nil {
		f.content = wire.ContentType(f.Header)
	}
	if bad == nil {
		f.scratch = w.raw
		bad = f.decodeFramed()
		w.raw = f.scratch
	}
	if bad != nil {
		// Damaged: nothing in it can be told apart, so the whole message is parked under its first event's name.
		if !w.park(l.work, Parked{Event: f.ID(0), Subject: f.Subject, Data: f.stored(), Err: bad, Attempts: 1, Header: f.Header}) {
			return false
		}
		s.conn.counters.EventsIn.Add(1)
		clear(l.storing)
		l.done.Store(f.Seq)
		return true
	}
	if !r.handle(l, w, f, h, sick) || !r.store(l, w.out, w.out.messages(), true) {
		return false
	}
	l.done.Store(f.Seq)
	l.settle()
	w.out.sendLive()
	w.out.count()
	s.conn.counters.EventsIn.Add(uint64(f.Len()))
	s.conn.counters.addConsumed(s.source.Stream, f, uint64(f.Len()))
	s.conn.counters.BytesIn.Add(uint64(f.eventBytes()))
	return true
}

// handle hands the events of a frame to the handler, one of the stage's workers at a time.
func (r *ordered) handle(l *lease, w *worker, f *Frame, h *held, sick *sickKeys) bool {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-l.work.Done():
		return false
	}
	defer r.stage.conn.counters.Working()()
	began := time.Now()
	defer w.limit.stop() // its context belongs to this lease
	w.sick = sick
	if f.Stream == r.stage.source.Stream { // else it has come back, and is not read again by a later owner
		try := w.try
		w.try, w.giveUp = l.heed(f, try), l.giveUp
		defer func() { w.try, w.giveUp = try, nil }()
	}
	w.out.beginFrame(h.feed.js, f)
	done := w.events(l.work, f, h)
	w.limit.over()
	if !done || !w.settle(l.work, f, h) {
		return false
	}
	r.stage.observe(time.Since(began))
	return true
}

func (r *ordered) key(f *Frame, i int) string {
	data, err := f.Event(i)
	if err != nil {
		return ""
	}
	if r.stage.collect != nil && f.content == setContent {
		if set, err := parseSet(data); err == nil {
			return set.key
		}
	}
	return r.stage.keyOf(data)
}

// store stores the output of one frame, or of an event that came back, under the lease's fences: what goes to one subject
// in order, the rest at once. inOrder says that it is a frame's.
func (r *ordered) store(l *lease, out *Out, msgs []*nats.Msg, inOrder bool) bool {
	clear(l.storing)
	for len(msgs) > 0 {
		var now, later []*nats.Msg
		in := make(map[string]bool, len(msgs))
		for _, m := range msgs {
			if in[m.Subject] {
				later = append(later, m)
				continue
			}
			in[m.Subject] = true
			now = append(now, m)
		}
		if !r.storeFenced(l, out, now, inOrder) {
			return false
		}
		msgs = later
	}
	return true
}

func (r *ordered) storeFenced(l *lease, out *Out, msgs []*nats.Msg, inOrder bool) bool {
	s := r.stage
	again := false
	defer func() {
		if again {
			s.blocked.clear()
		}
	}()
	unsure := false // of what was sent: only behind a new fence can be said what is stored
	for attempt := 0; ; attempt++ {
		if !l.valid() {
			return false
		}
		var err error
		if unsure {
			err = l.raise(l.work, r.own.targets)
		}
		if err == nil {
			msgs, err = l.unstored(l.work, msgs, inOrder)
		}
		if err == nil {
			if msgs, err = r.sendFenced(l, out, msgs); len(msgs) == 0 {
				return true
			}
			first := !unsure
			if unsure = true; first && fault.Code(err) == CodeWrongSequence {
				continue // a later owner's fence, or this one's was dropped by the stream's limits
			}
		}
		if l.work.Err() != nil {
			return false
		}
		s.blocked.set(err, again)
		again = true
		if !sleep(l.work, retryDelay(attempt)) {
			return false
		}
	}
}

// sendFenced tries once to store msgs and returns those that were not acknowledged.
func (r *ordered) sendFenced(l *lease, out *Out, msgs []*nats.Msg) ([]*nats.Msg, error) {
	c := r.stage.conn
	msgs, err := r.fenced(l, out, msgs)
	if err != nil {
		return msgs, err
	}
	return c.storeOnce(l.work, msgs, out.dropOf, func(m *nats.Msg, seq uint64) {
		if stream := c.streamOf(m.Subject); stream != "" {
			l.noteStored(stream, seq)
		}
	})
}

// fenced puts the lease's condition on each message and returns those that are to be stored: where a full stream has no
// room for the fence and drops what is newest, the messages are dropped.
func (r *ordered) fenced(l *lease, out *Out, msgs []*nats.Msg) ([]*nats.Msg, error) {
	keep := make([]*nats.Msg, 0, len(msgs))
	for i, m := range msgs {
		stream := r.stage.conn.streamOf(m.Subject)
		if stream != "" && l.fences[stream] == noFence {
			if err := l.raise(l.work, []string{stream}); err != nil {
				return append(keep, msgs[i:]...), err
			}
			if l.fences[stream] == noFence {
				out.dropOf(m)
				continue
			}
		}
		if stream != "" {
			l.condition(m, stream)
		}
		keep = append(keep, m)
	}
	return keep, nil
}

// streamOf names the stream that the grant publishes subject to, or nothing.
func (c *Conn) streamOf(subject string) string {
	r, err := c.route(subject)
	if err != nil {
		return ""
	}
	return r.Stream
}
