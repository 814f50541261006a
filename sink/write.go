package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/bus"
)

// tally is what the counters will say of a batch once it is durable.
type tally struct {
	last   uint64
	events uint64
	bytes  uint64
	routes map[string]volume
}

type volume struct{ events, bytes uint64 }

// write hands the batch to the target, without the events that it cannot take; those are parked first, so that a crash
// between the two loses nothing.
func (s *Sink) write(ctx, work context.Context, follower *bus.Follower, batch Batch, damaged []Poison) error {
	done := s.conn.Counters().Working()
	defer done()
	if len(damaged) > 0 {
		if err := s.park(ctx, work, batch, damaged); err != nil {
			return err
		}
		batch = batch.Without(damaged)
	}
	for {
		watermark, err := s.try(ctx, work, "write", func(ctx context.Context) (uint64, error) {
			return s.target.Write(ctx, batch)
		})
		if poison, ok := errors.AsType[*RowError](err); ok {
			smaller := batch.Without(poison.Rows)
			if len(smaller.skip) == len(batch.skip) {
				return fmt.Errorf("write %s: the target refuses events that it was not given: %w", s.src.Stream, err)
			}
			if err := s.park(ctx, work, batch, poison.Rows); err != nil {
				return err
			}
			batch = smaller
			continue
		}
		if err != nil {
			return err
		}
		if len(s.held) == 0 {
			s.heldTime = time.Now()
		}
		s.held = append(s.held, count(batch))
		s.settle(work, follower, watermark)
		return nil
	}
}

func (s *Sink) flush(ctx, work context.Context, follower *bus.Follower) error {
	if len(s.held) == 0 {
		return nil
	}
	watermark, err := s.try(ctx, work, "flush", func(ctx context.Context) (uint64, error) {
		return s.target.Flush(ctx, s.src.Stream)
	})
	if err != nil {
		return err
	}
	s.settle(work, follower, watermark)
	return nil
}

// settle counts what has become durable and tells the broker, which may drop it from the stream from then on.
func (s *Sink) settle(ctx context.Context, follower *bus.Follower, watermark uint64) {
	counters := s.conn.Counters()
	settled := 0
	for _, t := range s.held {
		if t.last > watermark {
			break
		}
		settled++
		counters.EventsIn.Add(t.events)
		counters.AddEdge("consumes", s.src.Stream, t.events)
		counters.BytesIn.Add(t.bytes)
		for subject, v := range t.routes {
			counters.AddOut(subject, v.events, v.bytes)
		}
	}
	if settled == 0 {
		return
	}
	s.held = append(s.held[:0], s.held[settled:]...)
	s.heldTime = time.Now()
	// The next commit says all that a lost one said, and nothing but room in the stream depends on it.
	_ = follower.Commit(ctx, watermark)
}

// park stores the events of rows as parked. An event whose frame cannot be decompressed is parked without its bytes,
// except the frame's first, which carries those of the frame.
func (s *Sink) park(ctx, work context.Context, batch Batch, rows []Poison) error {
	frames := make(map[uint64]*bus.Frame, len(batch.Frames))
	for _, f := range batch.Frames {
		frames[f.Seq] = f
	}
	for _, row := range rows {
		f := frames[row.ID.Seq]
		if f == nil || row.ID.Index >= f.Len() {
			continue
		}
		p := bus.Parked{Event: row.ID, Subject: f.Subject, Err: row.Err, Attempts: 1, Header: f.Header}
		if origin, subject, retried := retriedFrom(f); retried {
			origin.Index += row.ID.Index // a replayed frame holds several
			p.Event, p.Subject = origin, subject
		}
		data, err := f.Event(row.ID.Index)
		if err != nil && row.ID.Index == 0 {
			_, data = f.Stored()
		}
		p.Data = data
		_, err = s.try(ctx, work, "park", func(ctx context.Context) (uint64, error) { return 0, s.conn.Park(ctx, p) })
		if err != nil {
			return err
		}
	}
	return nil
}

// count sums a batch for the counters.
func count(b Batch) tally {
	t := tally{last: b.Last(), routes: make(map[string]volume, 1)}
	for _, f := range b.Frames {
		events, bytes := uint64(f.Len()), uint64(f.RawBytes())
		t.events += events
		t.bytes += bytes
		if b.Whole(f) {
			v := t.routes[f.Subject]
			t.routes[f.Subject] = volume{v.events + events, v.bytes + bytes}
			continue
		}
		for i := range f.Len() {
			if event, err := f.Event(i); err == nil && !b.Skips(f, i) {
				v := t.routes[f.Subject]
				t.routes[f.Subject] = volume{v.events + 1, v.bytes + uint64(len(event)) + 1}
			}
		}
	}
	return t
}
