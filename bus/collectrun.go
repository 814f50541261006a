package bus

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

const (
	// expiryPause is the least time between two looks at whether sets have expired: each asks the broker.
	expiryPause = 100 * time.Millisecond

	// replayPause is how long nothing has to come before the end of what is to be read again is looked for.
	replayPause = time.Second
)

// collect is what makes a Stage gather sets.
type collect struct {
	limits setLimits
	check  func(content string, data []byte) error // whether an event can be decoded
}

// collecting gathers the sets of one partition, as long as a lease lasts.
type collecting struct {
	*ordered
	l    *lease
	sets *sets
}

// collectPartition is partition for a Stage that gathers sets.
func (r *ordered) collectPartition(l *lease, f *Follower, after uint64) {
	c := &collecting{ordered: r, l: l, sets: newSets(r.stage.source.Stream, r.stage.collect.limits)}
	l.mu.Lock()
	var state setState
	if err := json.Unmarshal(l.rec.State, &state); err != nil && len(l.rec.State) > 0 {
		r.stage.log.Error("what is recorded of open sets cannot be read: events that waited are handled as new ones",
			"partition", l.p, "error", err)
		state = setState{}
	}
	c.sets.restoreFrom(state, after, l.tail)
	l.snapshot = c.snapshot
	l.mu.Unlock()
	for {
		until, bounded := c.lookAt()
		next, cancel := l.take, context.CancelFunc(func() {})
		if bounded {
			next, cancel = context.WithDeadline(l.take, until)
		}
		frame, err := f.Next(next)
		over := next.Err() != nil
		cancel()
		switch {
		case l.take.Err() != nil:
			return
		case frame != nil:
			if !r.turn(l, func(w *worker) bool { return c.frame(w, frame, err) && c.flush(w) }) {
				return
			}
		case !over:
			r.stage.log.Warn("a partition cannot be read any further", "partition", l.p, "error", err)
			return // another claim, here or elsewhere, begins anew
		default:
			// What was stored before the end of a set belongs to it, so an end needs that all of it was read.
			now := time.Now()
			if !f.caughtUp(l.take) {
				continue
			}
			c.sets.replayed()
			c.sets.expire(now)
			if !r.turn(l, c.flush) {
				return
			}
		}
	}
}

// lookAt says when to look for sets that have expired, if there may be any.
func (c *collecting) lookAt() (time.Time, bool) {
	if c.sets.replaying() {
		return time.Now().Add(replayPause), true
	}
	at, ok := c.sets.deadline()
	if soonest := time.Now().Add(expiryPause); at.Before(soonest) {
		at = soonest
	}
	return at, ok
}

// frame puts the events of a frame into their sets. It reports false when the lease or the work ended first.
func (c *collecting) frame(w *worker, f *Frame, bad error) bool {
	s := c.stage
	if f.Header != nil {
		f.content = wire.ContentType(f.Header)
	}
	if bad == nil {
		f.scratch = w.raw
		bad = f.decodeFramed()
		w.raw = f.scratch
	}
	before := f.Seq <= c.sets.read
	if !before {
		c.sets.replayed()
		c.sets.expire(f.Time)
	}
	switch {
	case bad != nil && !before:
		if !w.park(c.l.work, Parked{Event: f.ID(0), Subject: f.Subject, Data: f.stored(), Err: bad, Attempts: 1, Header: f.Header}) {
			return false
		}
	case bad == nil:
		if !c.events(w, f) {
			return false
		}
	}
	if !before {
		s.conn.counters.EventsIn.Add(uint64(f.Len()))
		s.conn.counters.BytesIn.Add(uint64(f.eventBytes()))
		c.sets.advance(f.Seq)
	} else if f.Seq == c.sets.read {
		c.sets.replayed()
	}
	return true
}

func (c *collecting) events(w *worker, f *Frame) bool {
	traces := tracesOf(f.Header, f.Len())
	for i := range f.Len() {
		if c.sets.skip(setRef{f.Seq, i}) {
			continue
		}
		data := f.event(i)
		if err := c.stage.collect.check(f.content, data); err != nil {
			if !w.park(c.l.work, Parked{Event: f.ID(i), Subject: f.Subject, Data: data, Err: err, Attempts: 1, Header: f.Header}) {
				return false
			}
			continue
		}
		e := rawSetEvent{id: f.ID(i), subject: f.Subject, time: f.Time, data: slices.Clone(data), content: f.content}
		e.trace, _ = traces.of(i)
		c.sets.add(c.stage.keyOf(e.data), e)
	}
	return true
}

// flush has the closed sets handled. Which they are is recorded first: else one that expired could have other events
// when it is made again, after a part of its output was stored.
func (c *collecting) flush(w *worker) bool {
	if c.sets.next() == nil {
		return true
	}
	if !w.persist(c.l.work, func() error { return c.l.record(c.l.work) }) {
		return false
	}
	for set := c.sets.next(); set != nil; set = c.sets.next() {
		if c.l.take.Err() != nil || !c.handleSet(w, set) {
			return false // the next owner finds it in the record
		}
		c.sets.handled()
		c.l.settle()
	}
	return true
}

// handleSet hands a set to the handler as if it were one event with the name of its first.
func (c *collecting) handleSet(w *worker, set *rawSet) bool {
	first := set.events[0]
	f := &Frame{
		Stream: c.stage.source.Stream, Subject: first.subject, Seq: first.id.Seq, Time: first.time, first: first.id.Index,
		Header: nats.Header{wire.HeaderContentType: {setContent}}, content: setContent, set: set,
	}
	for _, e := range set.events {
		if e.trace.Sampled {
			e.trace.Put(f.Header)
			break
		}
	}
	h := &held{feed: &feed{stream: f.Stream, js: wire.StreamName(f.Stream)}}
	if !c.handle(c.l, w, f, h, nil) || !c.store(c.l, w.out, w.out.messages(), true) {
		return false
	}
	w.out.sendLive()
	w.out.count()
	return true
}

// snapshot is what the lease records.
func (c *collecting) snapshot() (uint64, json.RawMessage) {
	done, state := c.sets.snapshot()
	if len(state.Open)+len(state.Closed) == 0 {
		return done, nil
	}
	data, err := json.Marshal(state)
	if err != nil {
		panic("bus: internal error: " + err.Error()) // it holds numbers and words only
	}
	return done, data
}

// caughtUp reports whether everything that the stream holds for the Follower was returned by Next.
func (f *Follower) caughtUp(ctx context.Context) bool {
	if f.pull == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	consumer, err := f.conn.js.Consumer(ctx, f.stream, f.src.Durable)
	if err != nil {
		return false
	}
	info := consumer.CachedInfo()
	return info.NumPending == 0 && info.Delivered.Consumer == f.expect-1
}
