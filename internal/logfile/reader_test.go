package logfile_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/logfile"
)

// written is a log under the hand of a test, which writes it as a capture does.
type written struct {
	t     testing.TB
	path  string
	keep  int
	names sync.Mutex
	file  *os.File
	index *logfile.IndexWriter
	size  int64
	clock time.Time
}

func newWritten(t testing.TB, keep int) *written {
	t.Helper()
	w := &written{t: t, path: t.TempDir() + "/out.log", keep: keep, clock: time.Now().Add(-time.Hour).Truncate(time.Second)}
	w.open(-1, 0)
	t.Cleanup(w.close)
	return w
}

func (w *written) open(size int64, above uint64) {
	w.t.Helper()
	var err error
	w.index, err = logfile.OpenIndex(w.path, size, above)
	must(w.t, err)
	w.file, err = os.OpenFile(w.path, os.O_RDWR|os.O_CREATE, 0o600)
	must(w.t, err)
	w.size = max(size, 0)
}

func (w *written) close() {
	w.t.Helper()
	must(w.t, w.file.Close())
	must(w.t, w.index.Close())
}

// write adds text one second after the last.
func (w *written) write(text string) {
	w.t.Helper()
	w.clock = w.clock.Add(time.Second)
	w.put(text)
}

func (w *written) put(text string) {
	w.t.Helper()
	must(w.t, w.index.Mark(w.clock, w.size))
	n, err := w.file.WriteAt([]byte(text), w.size)
	must(w.t, err)
	w.size += int64(n)
}

func (w *written) rotate() {
	w.t.Helper()
	w.names.Lock()
	must(w.t, logfile.Shift(w.path, w.keep))
	w.names.Unlock()
	w.close()
	w.open(-1, w.index.Seq())
}

func (w *written) compress() {
	w.t.Helper()
	must(w.t, logfile.Compress(nil, w.path, &w.names))
}

func (w *written) reader() *logfile.Reader {
	w.t.Helper()
	r, err := logfile.NewReader(w.path)
	must(w.t, err)
	w.t.Cleanup(r.Close)
	return r
}

// all reads the lines that there are.
func all(t testing.TB, r *logfile.Reader) (lines []string) {
	t.Helper()
	for {
		line, ok, err := r.Next()
		must(t, err)
		if !ok {
			return lines
		}
		lines = append(lines, string(line.Text))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestReaderFollowsAcrossRotationAndCompression(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 3)
	r := w.reader()
	expect(t, "an empty log", all(t, r))
	w.write("one\ntw")
	expect(t, "a line that is not ended", all(t, r), "one")
	w.write("o\nthree\n")
	w.rotate()
	w.write("four\n")
	expect(t, "one rotation", all(t, r), "two", "three", "four")
	w.write("five\n")
	w.rotate()
	w.write("six\n")
	w.rotate()
	w.write("seven\n")
	w.compress()
	expect(t, "two rotations and compression", all(t, r), "five", "six", "seven")
	w.rotate()
	w.compress()
	expect(t, "an empty file", all(t, r))
	w.write("eight\n")
	expect(t, "after it", all(t, r), "eight")
	for i := range 5 {
		w.write(fmt.Sprintf("late %d\n", i))
		w.rotate()
	}
	expect(t, "more rotations than are kept", all(t, r), "late 0", "late 2", "late 3", "late 4")
	if r.Missed() != 1 {
		t.Errorf("%d files missed, want 1", r.Missed())
	}
	expect(t, "a new reader", all(t, w.reader()), "late 2", "late 3", "late 4")
}

// Many readers follow while the log is rotated and compressed as fast as it goes.
func TestReadersLoseAndDoubleNothingUnderRotation(t *testing.T) {
	t.Parallel()
	const lines, readers = 4000, 3
	w := newWritten(t, lines)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		r := w.reader()
		wg.Go(func() {
			got := 0
			for ended := false; ; {
				line, ok, err := r.Next()
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					if string(line.Text) != fmt.Sprintf("line %d", got) {
						t.Errorf("in place of line %d stands %q", got, line.Text)
						return
					}
					got++
					continue
				}
				if ended {
					break
				}
				select {
				case <-done:
					ended = true
				default:
				}
			}
			if got != lines || r.Missed() > 0 {
				t.Errorf("%d lines of %d, missed %d files", got, lines, r.Missed())
			}
		})
	}
	rotated := make(chan struct{}, 1)
	wg.Go(func() {
		for range rotated {
			if err := logfile.Compress(nil, w.path, &w.names); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range lines {
		w.put(fmt.Sprintf("line %d\n", i))
		if i%50 == 49 {
			w.rotate()
			select {
			case rotated <- struct{}{}:
			default:
			}
		}
	}
	close(rotated)
	close(done)
	wg.Wait()
}

func TestTailReachesIntoRotatedAndCompressedFiles(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 9)
	var want []string
	for i := range 50 {
		line := fmt.Sprintf("line %d", i)
		want = append(want, line)
		w.write(line + "\n")
		if i%10 == 9 && i < 40 {
			w.rotate()
		}
		if i == 25 {
			w.compress()
		}
	}
	for _, n := range []int{0, 1, 9, 10, 11, 20, 21, 33, 49, 50, 99} {
		r := w.reader()
		must(t, r.Tail(n))
		expect(t, fmt.Sprintf("the last %d", n), all(t, r), want[max(0, len(want)-n):]...)
	}
	r := w.reader()
	w.put("no end")
	must(t, r.Tail(1))
	if line, ok := r.Rest(); ok {
		t.Errorf("rest before reading: %q", line.Text)
	}
	expect(t, "the last, which has no end", all(t, r))
	if line, ok := r.Rest(); !ok || string(line.Text) != "no end" {
		t.Errorf("rest %q %v", line.Text, ok)
	}
}

func TestTimesAreThoseOfCapture(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 9)
	var times []time.Time
	for i := range 30 {
		w.write(fmt.Sprintf("line %d\n", i))
		times = append(times, w.clock)
		if i%10 == 9 {
			w.rotate()
		}
		if i == 15 {
			w.compress()
		}
	}
	r := w.reader()
	for i := range 30 {
		line, ok, err := r.Next()
		must(t, err)
		if !ok || !line.Time.Equal(times[i]) {
			t.Fatalf("line %d %q: time %v, want %v", i, line.Text, line.Time, times[i])
		}
	}
	for from := range 30 {
		r := w.reader()
		must(t, r.Since(times[from]))
		got := all(t, r)
		// At the beginning of a file the last line of the file before may come first.
		if extra := len(got) - (30 - from); extra < 0 || extra > 1 || extra == 1 && from%10 != 0 || got[extra] != fmt.Sprintf("line %d", from) {
			t.Errorf("since line %d come %d lines from %q", from, len(got), got[:min(1, len(got))])
		}
	}
	late := w.reader()
	must(t, late.Since(times[29].Add(time.Hour)))
	if got := all(t, late); len(got) > 1 {
		t.Errorf("an hour after the last line come %q", got)
	}
	// What came within the interval has the time of its first byte.
	w.write("a\n")
	first := w.clock
	w.clock = w.clock.Add(logfile.Interval / 2)
	w.put("b\n")
	for range 2 {
		line, _, err := r.Next()
		must(t, err)
		if !line.Time.Equal(first) {
			t.Errorf("%q: time %v, want %v", line.Text, line.Time, first)
		}
	}
}

func TestIndexStaysSmallAndTrueInAFileThatIsLongInTheWriting(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 1)
	r := w.reader()
	const marks = 200_000
	begin := w.clock
	for i := range marks {
		w.clock = begin.Add(time.Duration(i) * logfile.Interval)
		must(t, w.index.Mark(w.clock, int64(i)))
	}
	info, err := os.Stat(w.path + ".idx")
	must(t, err)
	if info.Size() > 1<<20+100 {
		t.Errorf("index of %d bytes", info.Size())
	}
	x, err := logfile.ReadIndex(w.path + ".idx")
	must(t, err)
	if x.Every <= logfile.Interval {
		t.Errorf("interval %v after %d marks", x.Every, marks)
	}
	for _, i := range []int{0, 1, 7777, marks / 2, marks - 1} {
		real := begin.Add(time.Duration(i) * logfile.Interval)
		if off := real.Sub(x.At(int64(i))); off < 0 || off > x.Every {
			t.Errorf("mark %d is told %v early, precision is %v", i, off, x.Every)
		}
	}
	must(t, w.file.Truncate(marks))
	w.size = marks
	w.put("\nlast\n")
	for {
		line, ok, err := r.Next() // the reader saw the index before it was thinned
		must(t, err)
		if !ok {
			t.Fatal("the last line does not come")
		}
		if string(line.Text) == "last" {
			if off := w.clock.Sub(line.Time); off < 0 || off > x.Every {
				t.Errorf("its time is %v early, precision is %v", off, x.Every)
			}
			return
		}
	}
}

func TestLongLineComesInBoundedPieces(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 1)
	const size = 10 << 20
	w.write(strings.Repeat("é", size/2) + "\nnext\n")
	r := w.reader()
	total := 0
	for {
		line, ok, err := r.Next()
		must(t, err)
		if !ok {
			t.Fatal("no end")
		}
		total += len(line.Text)
		if len(line.Text) > logfile.MaxText || len(line.Text) > 0 && !bytes.HasPrefix(line.Text, []byte("é")) {
			t.Fatalf("piece of %d bytes begins with %q", len(line.Text), line.Text[:4])
		}
		if !line.Part {
			break
		}
	}
	if total != size {
		t.Errorf("%d bytes of %d", total, size)
	}
	expect(t, "after it", all(t, r), "next")
}

func TestTruncatedLogIsReadFromItsBeginning(t *testing.T) {
	t.Parallel()
	w := newWritten(t, 1)
	w.write("one\ntwo\n")
	r := w.reader()
	expect(t, "before", all(t, r), "one", "two")
	must(t, w.file.Truncate(0))
	w.size = 0
	expect(t, "truncated", all(t, r))
	w.put("new\n")
	expect(t, "after", all(t, r), "new")
}

func TestLogWithoutIndexIsRead(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/old.log"
	for i, name := range []string{path + ".2", path + ".1", path} {
		must(t, os.WriteFile(name, fmt.Appendf(nil, "line %d\n", i), 0o600))
	}
	must(t, os.WriteFile(path+".1.tmp", []byte("noise"), 0o600))
	must(t, os.WriteFile(path+".01", []byte("noise"), 0o600))
	r, err := logfile.NewReader(path)
	must(t, err)
	defer r.Close()
	expect(t, "all", all(t, r), "line 0", "line 1", "line 2")
	x, err := logfile.OpenIndex(path, 7, 0)
	must(t, err)
	defer x.Close()
	if x.Seq() != 3 {
		t.Errorf("the first index has number %d, want 3", x.Seq())
	}
}
