package bus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// setRef names an event of a partition's stream.
type setRef struct {
	seq   uint64
	index int
}

// setState is what of the sets is recorded: no event, only which ones are to be read again. It is the state in a
// wire.Owner.
type setState struct {
	Read   uint64        `json:"read"`             // events up to here that are named nowhere below are handled
	Open   refs          `json:"open,omitempty"`   // in open sets
	Closed []closedState `json:"closed,omitempty"` // in sets that are to be handled, in order
}

type closedState struct {
	Why    string `json:"why"`
	Events refs   `json:"events"`
}

// refs are in the order of the stream. As JSON they are a text of two bytes or so for each.
type refs []setRef

var errRefs = errors.New("the names of events are damaged")

func (r refs) MarshalJSON() ([]byte, error) {
	var out []byte
	last := setRef{}
	for _, ref := range r {
		out = binary.AppendUvarint(out, ref.seq-last.seq)
		if ref.seq != last.seq {
			last.index = 0
		}
		out = binary.AppendUvarint(out, uint64(ref.index-last.index)) //nolint:gosec // ascending
		last = ref
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode the names of events: %w", err)
	}
	return data, nil
}

func (r *refs) UnmarshalJSON(data []byte) error {
	var in []byte
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("decode the names of events: %w", err)
	}
	*r = nil
	last := setRef{}
	for len(in) > 0 {
		seq, n := binary.Uvarint(in)
		if n <= 0 {
			return errRefs
		}
		index, m := binary.Uvarint(in[n:])
		if m <= 0 || index > 1<<31 || last.seq+seq < last.seq || last.seq+seq == 0 {
			return errRefs
		}
		in = in[n+m:]
		if seq != 0 {
			last = setRef{seq: last.seq + seq}
		}
		if last.index += int(index); last.index > 1<<31 { //nolint:gosec // checked
			return errRefs
		}
		*r = append(*r, last)
	}
	return nil
}

// snapshot returns what is to be recorded, and the sequence up to which everything is settled.
func (s *sets) snapshot() (done uint64, state setState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.again != nil {
		return s.restore.done(), s.restore
	}
	state.Read = s.read
	for _, set := range s.open {
		state.Open = append(state.Open, set.refs()...)
	}
	slices.SortFunc(state.Open, compareRefs)
	for _, set := range s.closed {
		state.Closed = append(state.Closed, closedState{set.why, set.refs()})
	}
	return state.done(), state
}

// done is the sequence in front of the first event that the state names.
func (s setState) done() uint64 {
	done := s.Read
	for _, r := range append([]refs{s.Open}, closedRefs(s.Closed)...) {
		if len(r) > 0 {
			done = min(done, r[0].seq-1)
		}
	}
	return done
}

func closedRefs(closed []closedState) []refs {
	all := make([]refs, len(closed))
	for i, c := range closed {
		all[i] = c.Events
	}
	return all
}

func (set *rawSet) refs() refs {
	r := make(refs, len(set.events))
	for i, e := range set.events {
		r[i] = setRef{e.id.Seq, e.id.Index}
	}
	return r
}

func compareRefs(a, b setRef) int {
	if a.seq != b.seq {
		if a.seq < b.seq {
			return -1
		}
		return 1
	}
	return a.index - b.index
}

// restoreFrom goes on from a snapshot. after is where the partition is read from, and last the end of the stream: what
// lies outside was handled by somebody else, or is lost.
func (s *sets) restoreFrom(state setState, after, last uint64) {
	s.read = max(min(state.Read, last), after)
	inside := func(r refs) refs {
		return slices.DeleteFunc(slices.Clone(r), func(ref setRef) bool { return ref.seq <= after || ref.seq > s.read })
	}
	again := make(map[setRef]int)
	s.restore = setState{Read: s.read, Open: inside(state.Open)}
	for _, ref := range s.restore.Open {
		again[ref] = 0
	}
	for _, c := range state.Closed {
		events := inside(c.Events)
		if len(events) == 0 {
			continue
		}
		s.restore.Closed = append(s.restore.Closed, closedState{c.Why, events})
		s.closed = append(s.closed, &rawSet{why: c.Why})
		for _, ref := range events {
			again[ref] = len(s.closed)
		}
	}
	if len(again) > 0 {
		s.again = again
	}
}
