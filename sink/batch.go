package sink

import (
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
)

// Batch is consecutive frames of one source, in the order of the stream. It is valid until Write returns.
type Batch struct {
	Source string       // the stream's name in the manifest
	Frames []*bus.Frame // at least one
	skip   map[place]struct{}
}

// place is where a source stores an event.
type place struct {
	seq   uint64
	index int
}

// Row is one event on its way into a target.
type Row struct {
	ID      wire.EventID // of the event where it was first stored: a retried event keeps it
	At      wire.EventID // where the batch's frame stores it; the name that a Poison carries
	Subject string       // where it was first stored
	Data    []byte       // valid until Write returns, and not to be changed
}

// Last is the sequence of the last frame.
func (b Batch) Last() uint64 { return b.Frames[len(b.Frames)-1].Seq }

// Skips reports whether event i of frame f was parked and must not be written.
func (b Batch) Skips(f *bus.Frame, i int) bool {
	if len(b.skip) == 0 {
		return false
	}
	_, parked := b.skip[place{f.Seq, i}]
	return parked
}

// Whole reports whether every event of frame f is to be written, so that its stored bytes can be copied as they are.
func (b Batch) Whole(f *bus.Frame) bool {
	for p := range b.skip {
		if p.seq == f.Seq {
			return false
		}
	}
	return true
}

// Rows calls yield for every event to be written of the frames beyond sequence after, in order, until yield returns an
// error. The error is yield's, or a *RowError with all events of a frame that cannot be decompressed.
func (b Batch) Rows(after uint64, yield func(Row) error) error {
	for _, f := range b.Frames {
		if f.Seq <= after {
			continue
		}
		origin, subject, retried := retriedFrom(f)
		for i := range f.Len() {
			if b.Skips(f, i) {
				continue
			}
			data, err := f.Event(i)
			if err != nil {
				return b.unreadable(f, err)
			}
			row := Row{ID: f.ID(i), At: f.ID(i), Subject: f.Subject, Data: data}
			if retried {
				row.ID, row.Subject = origin, subject
			}
			if err := yield(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// unreadable names every event of a frame that cannot be decompressed.
func (b Batch) unreadable(f *bus.Frame, err error) *RowError {
	e := &RowError{}
	for i := range f.Len() {
		if !b.Skips(f, i) {
			e.Rows = append(e.Rows, Poison{f.ID(i), err})
		}
	}
	return e
}

// Without returns the batch with more events to skip, those that a RowError named. b stays as it is.
func (b Batch) Without(rows []Poison) Batch {
	skip := make(map[place]struct{}, len(b.skip)+len(rows))
	for p := range b.skip {
		skip[p] = struct{}{}
	}
	for _, row := range rows {
		skip[place{row.ID.Seq, row.ID.Index}] = struct{}{}
	}
	b.skip = skip
	return b
}

// retriedFrom returns where the one event of a retried frame was first stored. Frames that a stage made also say what
// they come from; that is their history and not their name.
func retriedFrom(f *bus.Frame) (id wire.EventID, subject string, ok bool) {
	if f.Stream != wire.RetryStream || f.Header == nil {
		return wire.EventID{}, "", false
	}
	id, err := wire.ParseEventID(f.Header.Get(wire.HeaderSource))
	if err != nil {
		return wire.EventID{}, "", false
	}
	subject = f.Header.Get(wire.HeaderSubject)
	if subject == "" {
		subject = f.Subject
	}
	return id, subject, true
}
