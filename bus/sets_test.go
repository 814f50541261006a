package bus

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// partitionModel is a partition of a stream, and what a reader of it that may die at any moment has left outside of
// itself: the record and the output, in which a repeat is recognised by its name.
type partitionModel struct {
	rand   *rand.Rand
	limits setLimits
	events []rawSetEvent // in order; several have one sequence
	last   uint64        // of the stream

	record json.RawMessage
	done   uint64
	output map[wire.EventID]rawSet
	order  []wire.EventID
}

// run reads on with a new reader until it dies, or has read everything and everything has expired.
func (m *partitionModel) run(t *testing.T, mortal bool) (finished bool) {
	t.Helper()
	var state setState
	if len(m.record) > 0 {
		if err := json.Unmarshal(m.record, &state); err != nil {
			t.Fatal(err)
		}
	}
	s := newSets("s", m.limits)
	s.restoreFrom(state, m.done, m.last)
	dies := func() bool { return mortal && m.rand.IntN(20) == 0 }
	commit := func() {
		done, state := s.snapshot()
		if done < m.done {
			t.Fatalf("the position goes back from %d to %d", m.done, done)
		}
		data, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		m.done, m.record = done, data
	}
	flush := func() bool {
		if s.next() == nil {
			return true
		}
		if dies() {
			return false
		}
		commit()
		for set := s.next(); set != nil; set = s.next() {
			if dies() {
				return false
			}
			m.send(t, set)
			if dies() {
				return false
			}
			s.handled()
		}
		return true
	}
	for seq := m.done + 1; seq <= m.last; seq++ {
		before := seq <= s.read
		for _, e := range m.events {
			if e.id.Seq != seq {
				continue
			}
			if !before && e.id.Index == 0 {
				s.replayed()
				s.expire(e.time)
			}
			if !s.skip(setRef{e.id.Seq, e.id.Index}) {
				s.add(e.subject, e)
			}
		}
		if !before {
			s.advance(seq)
		} else if seq == s.read {
			s.replayed()
		}
		if s.events > m.limits.events || s.bytes > m.limits.bytes {
			t.Fatalf("%d events with %d bytes wait, the limits are %+v", s.events, s.bytes, m.limits)
		}
		if !flush() {
			return false
		}
		if m.rand.IntN(5) == 0 {
			commit()
		}
		if m.rand.IntN(8) == 0 { // at whatever moment a clock says so
			if at, ok := s.deadline(); ok && !s.replaying() {
				s.expire(at)
			}
		}
		if !flush() || dies() {
			return false
		}
	}
	s.replayed()
	for at, ok := s.deadline(); ok; at, ok = s.deadline() {
		s.expire(at)
	}
	if !flush() {
		return false
	}
	commit()
	return true
}

// send stores the output of a set, which must be the same each time.
func (m *partitionModel) send(t *testing.T, set *rawSet) {
	t.Helper()
	name := set.events[0].id
	if was, ok := m.output[name]; ok {
		if was.why != set.why || was.key != set.key || !slices.Equal(was.refs(), set.refs()) {
			t.Fatalf("the set of %v is first %v (%s) and then %v (%s)", name, was.refs(), was.why, set.refs(), set.why)
		}
		return
	}
	m.output[name] = rawSet{key: set.key, why: set.why, events: slices.Clone(set.events)}
	m.order = append(m.order, name)
}

// Whatever happens to the readers, each event is in one set, the sets of a key follow one another, and what ends a set
// is true.
func TestSetsAreTheSameWhateverHappensToTheirReaders(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := &partitionModel{
			rand: r, output: make(map[wire.EventID]rawSet),
			limits: setLimits{
				size: r.IntN(6), timeout: time.Duration(1+r.IntN(30)) * time.Second,
				setBytes: setEventBytes * (2 + r.IntN(8)), events: 3 + r.IntN(30), bytes: setEventBytes * (4 + r.IntN(40)),
			},
		}
		now, keys := time.Unix(1e9, 0), 1+r.IntN(8)
		for range 40 {
			m.last += uint64(1 + r.IntN(3)) // other partitions have their messages between
			now = now.Add(time.Duration(r.IntN(4000)) * time.Millisecond)
			for i := range 1 + r.IntN(4) {
				m.events = append(m.events, rawSetEvent{
					id: wire.EventID{Stream: "s", Seq: m.last, Index: i}, time: now, subject: fmt.Sprint("key-", r.IntN(keys)),
					data: make([]byte, r.IntN(20)),
				})
			}
		}
		lives := 1
		for !m.run(t, lives < 200) {
			lives++
		}
		m.check(t, seed)
	}
}

func (m *partitionModel) check(t *testing.T, seed uint64) {
	t.Helper()
	var want, got []string // by key, in order
	last := make(map[string]setRef)
	for _, name := range m.order {
		set := m.output[name]
		bytes := 0
		for _, e := range set.events {
			ref := setRef{e.id.Seq, e.id.Index}
			if e.subject != set.key || compareRefs(last[set.key], ref) >= 0 {
				t.Fatalf("seed %d: %v of %s is in the set of %s behind %v", seed, ref, e.subject, set.key, last[set.key])
			}
			last[set.key] = ref
			bytes += e.size()
			got = append(got, e.id.String())
		}
		switch {
		case m.limits.size > 0 && len(set.events) > m.limits.size,
			set.why == WhySize && len(set.events) != m.limits.size,
			set.why != WhySize && len(set.events) == m.limits.size,
			len(set.events) > 1 && bytes > m.limits.setBytes:
			t.Fatalf("seed %d: a set of %d events with %d bytes ended by %s, the limits are %+v", seed, len(set.events), bytes, set.why, m.limits)
		}
	}
	for _, e := range m.events {
		want = append(want, e.id.String())
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Fatalf("seed %d: of %d events %d are in sets", seed, len(want), len(got))
	}
	if m.done != m.last {
		t.Fatalf("seed %d: done up to %d of %d", seed, m.done, m.last)
	}
}

func TestSetsGoByTheTimeOfTheStream(t *testing.T) {
	t.Parallel()
	began := time.Unix(1e9, 0)
	s := newSets("s", setLimits{size: 3, timeout: time.Minute, setBytes: 1 << 20, events: 100, bytes: 1 << 20})
	add := func(seq uint64, key string, after time.Duration) {
		at := began.Add(after)
		s.expire(at)
		s.add(key, rawSetEvent{id: wire.EventID{Stream: "s", Seq: seq}, time: at})
		s.advance(seq)
	}
	add(1, "a", 0)
	add(2, "b", 30*time.Second)
	add(3, "a", 59*time.Second)
	add(4, "a", 60*time.Second) // late: a set of its own
	add(5, "b", 70*time.Second)
	add(6, "b", 80*time.Second)
	var got []string
	for set := s.next(); set != nil; set = s.next() {
		got = append(got, fmt.Sprint(set.key, " ", set.why, " ", len(set.events)))
		s.handled()
	}
	if want := []string{"a timeout 2", "b size 3"}; !slices.Equal(got, want) {
		t.Errorf("sets %q, want %q", got, want)
	}
	if done, state := s.snapshot(); done != 3 || len(state.Open) != 1 {
		t.Errorf("done up to %d with %v open, want 3 with the late event", done, state.Open)
	}
}

func FuzzSetState(f *testing.F) {
	good, err := json.Marshal(setState{Read: 9, Open: refs{{3, 1}, {3, 4}, {8, 0}}, Closed: []closedState{{WhyTimeout, refs{{2, 0}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"read":1,"open":"AAAA"}`))
	f.Add([]byte(`{"read":18446744073709551615,"open":"////////////AQA="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var state setState
		if err := json.Unmarshal(data, &state); err != nil {
			return
		}
		again, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		var same setState
		if err := json.Unmarshal(again, &same); err != nil {
			t.Fatalf("%s cannot be read again: %v", again, err)
		}
		if !slices.Equal(state.Open, same.Open) || state.done() != same.done() {
			t.Errorf("%+v has become %+v", state, same)
		}
		s := newSets("s", setLimits{size: 2, timeout: time.Second, setBytes: 1 << 20, events: 10, bytes: 1 << 20})
		s.restoreFrom(state, 0, 1<<40)
		s.replayed()
		if s.next() != nil {
			t.Error("a set without events is to be handled")
		}
	})
}
