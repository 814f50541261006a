package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"time"
)

const (
	// Interval is how finely an Index tells times: while output flows there is a mark every 100 ms.
	Interval = 100 * time.Millisecond
	// maxMarks bounds an index to 1 MiB, which is 1.8 hours of output without a pause at the finest. Then every second
	// mark is dropped and the interval doubles, for this file only.
	maxMarks = 1 << 16

	// An index begins with magic, the number of doublings in one byte, and the sequence number; marks of a time in
	// nanoseconds since 1970 and an offset follow. All numbers are little-endian.
	magic     = "hozolog"
	headBytes = len(magic) + 1 + 8
	markBytes = 16
	// maxDoublings keeps a damaged header from overflowing the interval: 100 ms doubled 24 times are 19 days.
	maxDoublings = 24
)

// mark says that the bytes from an offset on were captured at a time or later, until the next mark's.
type mark struct {
	time   int64 // nanoseconds since 1970
	offset int64
}

// Index says when the bytes of a log file were captured. The bytes between two marks were captured between the time of
// the first and Every later.
type Index struct {
	Seq   uint64        // of the file: the next file of the log has the next number
	Every time.Duration // precision: Interval, unless the file was long in the writing
	marks []mark
}

// At returns when the byte at an offset was captured: not before, and not more than Every after. It is zero when the index
// does not say.
func (x Index) At(offset int64) time.Time {
	i := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].offset > offset })
	if i > 0 {
		return time.Unix(0, x.marks[i-1].time)
	}
	if len(x.marks) > 0 {
		return time.Unix(0, x.marks[0].time) // the index was begun after the file: not later than this
	}
	return time.Time{}
}

// From returns the offset before which everything was captured before t.
func (x Index) From(t time.Time) int64 {
	early := t.Add(-x.Every).UnixNano()
	for _, m := range x.marks { // clocks jump, so times need not be in order
		if m.time >= early {
			return m.offset
		}
	}
	if len(x.marks) == 0 {
		return 0
	}
	return x.marks[len(x.marks)-1].offset
}

// ReadIndex reads the index at path. A damaged or missing one is an error; what is after its last whole mark is left out.
func ReadIndex(path string) (Index, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Index{}, err
	}
	return parseIndex(data)
}

func parseIndex(data []byte) (Index, error) {
	x, err := parseHead(data)
	if err != nil {
		return Index{}, err
	}
	x.marks = appendMarks(nil, data[headBytes:])
	return x, nil
}

func parseHead(data []byte) (Index, error) {
	if len(data) < headBytes || string(data[:len(magic)]) != magic || data[len(magic)] > maxDoublings {
		return Index{}, errors.New("not an index of a log")
	}
	return Index{Seq: binary.LittleEndian.Uint64(data[len(magic)+1:]), Every: Interval << data[len(magic)]}, nil
}

// appendMarks reads whole marks; those that go back in the file are damage and are left out.
func appendMarks(to []mark, data []byte) []mark {
	for ; len(data) >= markBytes; data = data[markBytes:] {
		m := mark{int64(binary.LittleEndian.Uint64(data)), int64(binary.LittleEndian.Uint64(data[8:]))}
		if m.offset < 0 || len(to) > 0 && m.offset < to[len(to)-1].offset {
			continue
		}
		to = append(to, m)
	}
	return to
}

func (x Index) encode() []byte {
	doublings := byte(0)
	for every := Interval; every < x.Every; every *= 2 {
		doublings++
	}
	out := append([]byte(magic), doublings)
	out = binary.LittleEndian.AppendUint64(out, x.Seq)
	for _, m := range x.marks {
		out = appendMark(out, m)
	}
	return out
}

func appendMark(to []byte, m mark) []byte {
	to = binary.LittleEndian.AppendUint64(to, uint64(m.time))
	return binary.LittleEndian.AppendUint64(to, uint64(m.offset))
}

// IndexWriter writes the index of a log file that grows. It is not safe for concurrent use.
type IndexWriter struct {
	path  string
	file  *os.File
	seq   uint64
	every time.Duration
	marks int
	first time.Time
	last  time.Time
}

// OpenIndex opens the index of the log at path, whose present file has size bytes; a file that is yet to be made has -1.
// An index that is there goes on; marks beyond size are dropped. Otherwise a new one is begun, with the sequence number
// after that of every file of the log, and above the given one.
func OpenIndex(path string, size int64, above uint64) (*IndexWriter, error) {
	name := indexPath(path, 0)
	x, err := ReadIndex(name)
	// An index with marks but without a file is that of a file that is gone.
	if err != nil || size < 0 && len(x.marks) > 0 || x.Seq <= above {
		files, err := List(path)
		if err != nil {
			return nil, err
		}
		seq := max(x.Seq, above)
		for _, f := range files {
			if size < 0 || f.Slot > 0 {
				seq = max(seq, f.Seq)
			}
		}
		x = Index{Seq: seq + 1, Every: Interval}
	}
	x.marks = slices.DeleteFunc(x.marks, func(m mark) bool { return m.offset > max(size, 0) })
	w := &IndexWriter{path: name, seq: x.Seq, every: x.Every}
	if err := w.replace(x); err != nil {
		return nil, err
	}
	return w, nil
}

// replace writes an index anew, whole or not at all.
func (w *IndexWriter) replace(x Index) error {
	temp := w.path + tempSuffix
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(x.encode()); err == nil {
		err = os.Rename(temp, w.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(temp))
	}
	if w.file != nil {
		_ = w.file.Close() // replaced
	}
	w.file, w.marks, w.every = f, len(x.marks), x.Every
	if w.marks > 0 {
		w.first, w.last = time.Unix(0, x.marks[0].time), time.Unix(0, x.marks[w.marks-1].time)
	}
	return nil
}

// Mark notes that what is written from offset on is captured now. It does nothing within the interval after the last.
func (w *IndexWriter) Mark(now time.Time, offset int64) error {
	if since := now.Sub(w.last); w.marks > 0 && since >= 0 && since < w.every {
		return nil
	}
	if w.marks >= maxMarks {
		if err := w.thin(); err != nil {
			return err
		}
	}
	at := int64(headBytes + w.marks*markBytes) // a mark that was half written is written over
	if _, err := w.file.WriteAt(appendMark(nil, mark{now.UnixNano(), offset}), at); err != nil {
		return err
	}
	if w.marks == 0 {
		w.first = now
	}
	w.marks++
	w.last = now
	return nil
}

// thin drops every second mark.
func (w *IndexWriter) thin() error {
	x, err := ReadIndex(w.path)
	if err != nil {
		return err
	}
	half := x.marks[:0]
	for i := 0; i < len(x.marks); i += 2 {
		half = append(half, x.marks[i])
	}
	x.marks = half
	x.Every = min(2*x.Every, Interval<<maxDoublings)
	return w.replace(x)
}

// First returns when the first byte of the file was captured, or zero while it has none. A nil index says zero.
func (w *IndexWriter) First() time.Time {
	if w == nil {
		return time.Time{}
	}
	return w.first
}

// Seq returns the sequence number of the file.
func (w *IndexWriter) Seq() uint64 { return w.seq }

// Close closes the index.
func (w *IndexWriter) Close() error { return w.file.Close() }

func readSeq(path string) (uint64, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	head := make([]byte, headBytes)
	if n, err := f.ReadAt(head, 0); err != nil || n < headBytes {
		return 0, false
	}
	x, err := parseHead(head)
	return x.Seq, err == nil
}

func indexPath(path string, slot int) string { return slotPath(path, slot) + ".idx" }

func slotPath(path string, slot int) string {
	if slot == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, slot)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
