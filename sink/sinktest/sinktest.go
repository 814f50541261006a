// Package sinktest is one suite for every sink.Target: what exactly once means, as tests.
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/wire"
)

// Harness is how the suite gets at a kind of target.
type Harness struct {
	// Open opens the target in dir, which exists and keeps what earlier targets wrote.
	Open func(ctx context.Context, dir string) (sink.Target, error)
	// Rows returns the events of source that are durable in dir, in the order in which they were written.
	Rows func(t testing.TB, dir, source string) []string
	// Poison is an event that the target refuses.
	Poison []byte
}

// Run checks that targets of h are what sink.Target promises.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Harness){
		"KeepsOrderAndWatermark":                keepsOrder,
		"EmptyTargetHasWatermarkZero":           empty,
		"RepeatedAndOverlappingBatchesLandOnce": repeats,
		"GapsInTheSequenceAreNoMatter":          gaps,
		"SourcesHaveWatermarksOfTheirOwn":       sources,
		"CrashAtEveryStepLandsEveryEventOnce":   crashes,
		"ZombieCannotWriteBesideItsSuccessor":   zombie,
		"PoisonIsNamedAndItsNeighboursLand":     poison,
		"BatchOfPoisonAloneMovesTheWatermark":   poisonAlone,
		"UncompressedAndBareMessagesLand":       otherForms,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h)
		})
	}
}

const stream = "events.test"

// opened is a target with its dir, closed at the end of the test.
type opened struct {
	sink.Target
	t   *testing.T
	h   Harness
	dir string
}

func open(t *testing.T, h Harness, dir string) *opened {
	t.Helper()
	target, err := h.Open(t.Context(), dir)
	if err != nil {
		t.Fatalf("open target: %v", err)
	}
	o := &opened{target, t, h, dir}
	t.Cleanup(o.close)
	return o
}

// close gives up what is not durable, as a crash does.
func (o *opened) close() {
	if o.Target == nil {
		return
	}
	if err := o.Target.Close(); err != nil {
		o.t.Errorf("close target: %v", err)
	}
	o.Target = nil
}

func (o *opened) crash() *opened {
	o.t.Helper()
	o.close()
	return open(o.t, o.h, o.dir)
}

func (o *opened) watermark(source string) uint64 {
	o.t.Helper()
	w, err := o.Watermark(o.t.Context(), source)
	if err != nil {
		o.t.Fatalf("watermark of %s: %v", source, err)
	}
	return w
}

func (o *opened) write(b sink.Batch) uint64 {
	o.t.Helper()
	w, err := o.Write(o.t.Context(), b)
	if err != nil {
		o.t.Fatalf("write %s up to %d: %v", b.Source, b.Last(), err)
	}
	return w
}

func (o *opened) flush(source string) uint64 {
	o.t.Helper()
	w, err := o.Flush(o.t.Context(), source)
	if err != nil {
		o.t.Fatalf("flush %s: %v", source, err)
	}
	return w
}

func (o *opened) wantRows(source string, want []string) {
	o.t.Helper()
	if got := o.h.Rows(o.t, o.dir, source); !slices.Equal(got, want) {
		o.t.Fatalf("%s holds %d rows, want %d\n got %.300q\nwant %.300q", source, len(got), len(want), got, want)
	}
}

func keepsOrder(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	o.watermark(stream)
	for seq := uint64(1); seq <= 20; seq += 4 {
		o.write(Frames(stream, seq, seq+3))
	}
	if got := o.flush(stream); got != 20 {
		t.Fatalf("watermark is %d after frame 20 was flushed", got)
	}
	o.wantRows(stream, Events(stream, 1, 20))
	if got := o.crash().watermark(stream); got != 20 {
		t.Fatalf("watermark is %d after a restart, want 20", got)
	}
}

func empty(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	if got := o.watermark(stream); got != 0 {
		t.Fatalf("watermark of an empty target is %d", got)
	}
	if got := o.flush(stream); got != 0 {
		t.Fatalf("watermark after flushing nothing is %d", got)
	}
	if _, err := o.Write(t.Context(), Frames("events.unclaimed", 1, 1)); err == nil {
		t.Fatal("a source that was not claimed could be written")
	}
	if got := o.crash().watermark(stream); got != 0 {
		t.Fatalf("watermark of an empty target is %d after a restart", got)
	}
}

func repeats(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	o.watermark(stream)
	o.write(Frames(stream, 1, 3))
	o.write(Frames(stream, 1, 3))
	o.write(Frames(stream, 2, 5))
	o.flush(stream)
	o.write(Frames(stream, 4, 5))
	o.write(Frames(stream, 5, 6))
	o.flush(stream)
	o.wantRows(stream, Events(stream, 1, 6))
}

func gaps(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	o.watermark(stream)
	var want []string
	for _, seq := range []uint64{3, 7, 8, 1000} {
		o.write(Frames(stream, seq, seq))
		o.flush(stream)
		want = append(want, Events(stream, seq, seq)...)
	}
	o.wantRows(stream, want)
	if got := o.crash().watermark(stream); got != 1000 {
		t.Fatalf("watermark is %d after a restart, want 1000", got)
	}
}

func sources(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	const other = "events.other"
	o.watermark(stream)
	o.watermark(other)
	var wg sync.WaitGroup
	for source, last := range map[string]uint64{stream: 12, other: 30} {
		wg.Go(func() {
			for seq := uint64(1); seq <= last; seq++ {
				if _, err := o.Write(t.Context(), Frames(source, seq, seq)); err != nil {
					t.Errorf("write %s: %v", source, err)
				}
			}
			if _, err := o.Flush(t.Context(), source); err != nil {
				t.Errorf("flush %s: %v", source, err)
			}
		})
	}
	wg.Wait()
	o = o.crash()
	for source, last := range map[string]uint64{stream: 12, other: 30} {
		if got := o.watermark(source); got != last {
			t.Errorf("watermark of %s is %d, want %d", source, got, last)
		}
		o.wantRows(source, Events(source, 1, last))
	}
}

// crashes closes the target before and after every step and goes on at its watermark, as a Sink does.
func crashes(t *testing.T, h Harness) {
	const frames = 8
	for _, flushEvery := range []int{1, 3, frames + 1} {
		for crashAt := range 2*frames + 2 {
			dir := t.TempDir()
			o := open(t, h, dir)
			step := 0
			crash := func() bool { step++; return step == crashAt+1 }
			next := o.watermark(stream) + 1
			for next <= frames {
				if crash() {
					o = o.crash()
					next = o.watermark(stream) + 1
					continue
				}
				o.write(Frames(stream, next, next))
				if crash() {
					o = o.crash()
					next = o.watermark(stream) + 1
					continue
				}
				if int(next)%flushEvery == 0 {
					o.flush(stream)
				}
				next++
			}
			if w := o.flush(stream); w != frames {
				t.Fatalf("crash at step %d: watermark is %d, want %d", crashAt, w, frames)
			}
			o.wantRows(stream, Events(stream, 1, frames))
			o.close()
		}
	}
}

func zombie(t *testing.T, h Harness) {
	dir := t.TempDir()
	old := open(t, h, dir)
	old.watermark(stream)
	old.write(Frames(stream, 1, 2))
	old.flush(stream)

	young := open(t, h, dir)
	after, err := young.Watermark(t.Context(), stream)
	if err != nil { // the target keeps the successor out while the old one lives
		old.write(Frames(stream, 3, 4))
		old.flush(stream)
		old.close()
		if after = young.watermark(stream); after != 4 {
			t.Fatalf("the successor's watermark is %d, want 4", after)
		}
	} else if _, err := old.Write(t.Context(), Frames(stream, 3, 4)); !errors.Is(err, sink.ErrFenced) {
		t.Fatalf("the zombie's write gave %v, want ErrFenced", err)
	}
	young.write(Frames(stream, after+1, 6))
	young.flush(stream)
	young.wantRows(stream, Events(stream, 1, 6))
}

func poison(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	o.watermark(stream)
	b := Frames(stream, 1, 1)
	good := Events(stream, 2, 2)
	b.Frames = append(b.Frames, Message(stream, stream, 2, nil, h.Poison), Frame(stream, 3, wire.CodecZstd, []byte(good[0])), Message(stream, stream, 4, nil, h.Poison))
	_, err := o.Write(t.Context(), b)
	rows, ok := errors.AsType[*sink.RowError](err)
	if !ok {
		t.Fatalf("writing poison gave %v, want a *sink.RowError", err)
	}
	want := []wire.EventID{{Stream: stream, Seq: 2}, {Stream: stream, Seq: 4}}
	var got []wire.EventID
	for _, r := range rows.Rows {
		got = append(got, r.ID)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the poison is %v, want %v", got, want)
	}
	o.write(b.Without(rows.Rows))
	if w := o.flush(stream); w != 4 {
		t.Fatalf("watermark is %d behind the poison, want 4", w)
	}
	o.wantRows(stream, append(Events(stream, 1, 1), good[0]))
}

func poisonAlone(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	o.watermark(stream)
	b := sink.Batch{Source: stream}
	b.Frames = append(b.Frames, Message(stream, stream, 1, nil, h.Poison))
	b = b.Without([]sink.Poison{{ID: wire.EventID{Stream: stream, Seq: 1}}})
	o.write(b)
	if w := o.flush(stream); w != 1 {
		t.Fatalf("watermark is %d, want 1", w)
	}
	o = o.crash()
	if w := o.watermark(stream); w != 1 {
		t.Fatalf("watermark is %d after a restart, want 1", w)
	}
	o.wantRows(stream, nil)
}

func otherForms(t *testing.T, h Harness) {
	o := open(t, h, t.TempDir())
	o.watermark(stream)
	var events []string
	for i := range 8 {
		events = append(events, fmt.Sprintf(`{"n":%d}`, i))
	}
	o.write(sink.Batch{Source: stream, Frames: []*bus.Frame{
		Frame(stream, 1, wire.CodecS2, []byte(events[0]), []byte(events[1])),
		Message(stream, stream, 2, nil, []byte(events[2])),
		Frame(stream, 3, wire.CodecZstd, []byte(events[3]), []byte(events[4])),
		Message(stream, stream, 4, nil, []byte("{\n\"n\":5\n}")),
		Frame(stream, 5, wire.CodecNone, []byte(events[6]), []byte(events[7])),
	}})
	o.flush(stream)
	got := o.h.Rows(t, o.dir, stream)
	if len(got) == len(events) && got[5] == "{\n\"n\":5\n}" {
		got[5] = events[5] // a target may keep the event's own lines
	}
	if !slices.Equal(got, events) {
		t.Fatalf("rows are %q, want %q", got, events)
	}
}
