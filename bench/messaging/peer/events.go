package main

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
)

// mostEvents is how many a sink can tell apart.
const mostEvents = 1 << 26

// endMark is the number of the event that says how many came before it.
const endMark = math.MaxUint64

// eventKeys are the keys of events that keep their order: the one of number n has the key n modulo their number.
var eventKeys = func() (all [1000]string) {
	for i := range all {
		all[i] = "key-" + strconv.Itoa(i)
	}
	return all
}()

func keyOf(seq uint64) int { return int(seq % uint64(len(eventKeys))) }

func mix(seq uint64, size int) uint64 { return seq*0x9E3779B97F4A7C15 + uint64(size) }

// stamp makes event the one of number seq.
func stamp(event []byte, seq uint64) { stampAs(event, seq, mix(seq, len(event))) }

func stampAs(event []byte, seq, last uint64) {
	binary.LittleEndian.PutUint64(event, seq)
	binary.LittleEndian.PutUint64(event[len(event)-8:], last)
}

// produce sends events for as long as s says, through send, which must not keep the bytes, and reports.
func (s settings) produce(send func(event []byte) error, flush func() error) error {
	event := bytes.Repeat([]byte("x"), s.size)
	first := monotonic()
	until := first + int64(s.ms)*1e6
	n := uint64(0)
	for n < s.most && monotonic() < until {
		for range min(64, s.most-n) {
			stamp(event, n)
			if err := send(event); err != nil {
				return err
			}
			n++
		}
	}
	stampAs(event, endMark, n)
	if err := send(event); err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	return report(map[string]any{"first": first, "count": n})
}

// steadyPause is the time between two events of produceSteadily: 2,000 a second, which ten readers on two cores take with
// ease, so that what is measured is one holding up another and not all of them queueing for a core.
const steadyPause = 500 * time.Microsecond

// produceSteadily is produce at a steady rate. Bytes 8 to 16 of an event, which has at least 24, say when it was due by
// the monotonic clock, so that a sender who is held up counts as late.
func (s settings) produceSteadily(send func(event []byte) error, flush func() error) error {
	event := bytes.Repeat([]byte("x"), s.size)
	first := monotonic()
	n := uint64(0)
	for due := first; due < first+int64(s.ms)*1e6; due += int64(steadyPause) {
		time.Sleep(time.Duration(due - monotonic()))
		binary.LittleEndian.PutUint64(event[8:], uint64(due))
		stamp(event, n)
		if err := send(event); err != nil {
			return err
		}
		n++
	}
	stampAs(event, endMark, n)
	if err := send(event); err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	return report(map[string]any{"first": first, "count": n})
}

// tally is what a sink has seen. One goroutine adds; it is read once done is closed.
type tally struct {
	size int
	done chan struct{} // closed when every event has come

	seen     []uint64
	distinct uint64
	sum      uint64
	twice    uint64
	damaged  uint64
	want     uint64
	last     int64

	took []int64  // when it is kept: from when each event was due until it came, ns
	next []uint64 // by key, when the order is checked: one more than the number that came last
}

func newTally(size int) *tally {
	return &tally{size: size, done: make(chan struct{}), seen: make([]uint64, mostEvents/64), want: endMark}
}

func (t *tally) add(event []byte) {
	if len(event) != t.size {
		t.damaged++
		return
	}
	seq, last := binary.LittleEndian.Uint64(event), binary.LittleEndian.Uint64(event[len(event)-8:])
	switch {
	case seq == endMark:
		if t.want != endMark {
			return // the end may come twice, like everything that is delivered at least once
		}
		t.want = last
	case last != mix(seq, t.size) || seq >= mostEvents:
		t.damaged++
		return
	case t.seen[seq/64]>>(seq%64)&1 == 1:
		t.twice++
		return
	case t.next != nil && seq < t.next[keyOf(seq)]:
		t.damaged++ // out of order
		return
	default:
		if t.next != nil {
			t.next[keyOf(seq)] = seq + 1
		}
		if t.took != nil {
			t.took = append(t.took, monotonic()-int64(binary.LittleEndian.Uint64(event[8:])))
		}
		t.seen[seq/64] |= 1 << (seq % 64)
		t.distinct++
		t.sum += seq
	}
	if t.distinct == t.want {
		t.last = monotonic()
		close(t.done)
	}
}

// finish waits for the last event and reports.
func (t *tally) finish() error {
	<-t.done
	return report(map[string]any{"last": t.last, "count": t.distinct, "sum": t.sum, "twice": t.twice, "damaged": t.damaged, "took": t.took})
}

// askAll has callers ask, each again as soon as it has its answer, and reports.
func (s settings) askAll(ask func(question []byte) ([]byte, error)) error {
	var (
		callers sync.WaitGroup
		mu      sync.Mutex
		took    []int64
		damaged int
		failed  error
	)
	first := monotonic()
	until := first + int64(s.ms)*1e6
	for range s.callers {
		callers.Go(func() {
			question := bytes.Repeat([]byte("x"), s.size)
			var mine []int64
			bad := 0
			for at := first; at < until; {
				stamp(question, uint64(len(mine)))
				answer, err := ask(question)
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				if !bytes.Equal(question, answer) {
					bad++
				}
				later := monotonic()
				mine = append(mine, later-at)
				at = later
			}
			mu.Lock()
			defer mu.Unlock()
			took, damaged = append(took, mine...), damaged+bad
		})
	}
	callers.Wait()
	last := monotonic()
	if failed != nil {
		return failed
	}
	slices.Sort(took)
	n := len(took)
	return report(map[string]any{
		"first": first, "last": last, "count": n, "damaged": damaged, "p50": took[n/2], "p99": took[n*99/100],
	})
}
