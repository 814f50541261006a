package logfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// MaxText bounds the memory of one line: a longer one comes in pieces of at most this many bytes.
const MaxText = 64 << 10

// maxTries bounds how often a log that is being rotated is looked at before it counts as busy.
const maxTries = 20

// Line is a line of a log, or a piece of one that is longer than MaxText.
type Line struct {
	Time time.Time // see Index.At; zero when nothing tells
	Text []byte    // without the line's end; valid until the next call of Next
	Part bool      // the line goes on in the next Line
}

// Reader reads a log from a place in its past to its present end, and on as it grows: across rotation, compression and
// new incarnations of the process, each line once. It is not safe for concurrent use.
type Reader struct {
	path string

	seq    uint64
	file   *os.File // nil before there is a log
	zst    *zstd.Decoder
	in     io.Reader
	index  Index
	marks  *os.File // the index of a file that still grows
	modAt  time.Time
	closed bool // the file will not grow: it was rotated

	buf        []byte
	start, end int   // what of buf is not given yet
	offset     int64 // of buf[start] in the file
	missed     uint64
}

// NewReader returns a reader that stands before the first line of the log at path, which need not exist yet.
func NewReader(path string) (*Reader, error) {
	r := &Reader{path: path}
	return r, r.advance()
}

// Close closes the files of the reader.
func (r *Reader) Close() {
	if r.zst != nil {
		r.zst.Close()
	}
	if r.marks != nil {
		_ = r.marks.Close() // read side: nothing to lose
	}
	if r.file != nil {
		_ = r.file.Close() // as above
	}
	r.zst, r.marks, r.file, r.in = nil, nil, nil, nil
}

// Missed returns how many files were dropped before they could be read.
func (r *Reader) Missed() uint64 { return r.missed }

// Next returns the next line. ok is false when there is none for now; a line whose end is not written yet is kept back,
// see Rest.
func (r *Reader) Next() (line Line, ok bool, err error) {
	for {
		if i := bytes.IndexByte(r.buf[r.start:r.end], '\n'); i >= 0 {
			return r.give(i, 1, false), true, nil
		}
		if r.end-r.start >= MaxText {
			return r.give(whole(r.buf[r.start:r.end]), 0, true), true, nil
		}
		more, err := r.fill()
		if err != nil {
			return Line{}, false, err
		}
		if more {
			continue
		}
		if r.closed && r.end > r.start { // nobody writes the rest
			return r.give(r.end-r.start, 0, false), true, nil
		}
		moved, err := r.follow()
		if !moved || err != nil {
			return Line{}, false, err
		}
	}
}

// Rest returns the line at the end of the log that has no line's end yet.
func (r *Reader) Rest() (Line, bool) {
	if r.end == r.start {
		return Line{}, false
	}
	return r.give(r.end-r.start, 0, true), true
}

// give takes n bytes of text and skip bytes of the line's end from the buffer.
func (r *Reader) give(n, skip int, part bool) Line {
	line := Line{Time: r.at(r.offset), Text: r.buf[r.start : r.start+n], Part: part}
	r.start += n + skip
	r.offset += int64(n + skip)
	return line
}

func (r *Reader) at(offset int64) time.Time {
	if t := r.index.At(offset); !t.IsZero() {
		return t
	}
	return r.modAt
}

// whole is how much of a text does not end within a character.
func whole(text []byte) int {
	for back := 1; back < utf8.UTFMax && back < len(text); back++ {
		if b := text[len(text)-back]; utf8.RuneStart(b) {
			if !utf8.FullRune(text[len(text)-back:]) {
				return len(text) - back
			}
			break
		}
	}
	return len(text)
}

// fill reads more of the present file; more is false at its end.
func (r *Reader) fill() (more bool, err error) {
	if r.in == nil {
		return false, nil
	}
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	if r.end == len(r.buf) {
		grown := make([]byte, min(max(2*len(r.buf), 4<<10), MaxText))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
	n, err := r.in.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		r.freshen()
		return true, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return false, nil
}

// freshen takes in what the index of a growing file has got; marks are written before the bytes that they are of.
func (r *Reader) freshen() {
	if r.marks == nil {
		return
	}
	if info, err := r.marks.Stat(); err != nil || unlinked(info) {
		r.openMarks() // it was thinned, which makes a new file
		return
	}
	at := int64(headBytes + len(r.index.marks)*markBytes)
	var fresh [64 * markBytes]byte
	for {
		n, _ := r.marks.ReadAt(fresh[:], at) // at the end there is nothing more
		n -= n % markBytes
		if n == 0 {
			return
		}
		before := len(r.index.marks)
		r.index.marks = appendMarks(r.index.marks, fresh[:n])
		at += int64(n)
		if len(r.index.marks) < before+n/markBytes {
			r.openMarks() // damaged
			return
		}
	}
}

func (r *Reader) openMarks() {
	if r.marks != nil {
		_ = r.marks.Close() // read side: nothing to lose
		r.marks = nil
	}
	f, err := os.Open(indexPath(r.path, 0))
	if err != nil {
		return // times are told as far as they are known
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(headBytes+2*maxMarks*markBytes)))
	x, bad := parseIndex(data)
	if err != nil || bad != nil || x.Seq != r.seq {
		_ = f.Close() // that of another file: this one was rotated
		return
	}
	r.index, r.marks = x, f
}

// follow goes to the next file when the present one was rotated; moved is false when there is nothing to go to, and true
// when there may be more to read.
func (r *Reader) follow() (moved bool, err error) {
	if r.file == nil {
		err := r.advance()
		return r.file != nil, err
	}
	if !r.closed {
		info, err := r.file.Stat()
		if err != nil {
			return false, err
		}
		now, err := os.Stat(r.path)
		if err != nil {
			return false, nil // between rename and create there is no file for a moment
		}
		if os.SameFile(info, now) {
			if info.Size() < r.offset { // truncated by somebody else
				_, err := r.file.Seek(0, io.SeekStart)
				r.start, r.end, r.offset = 0, 0, 0
				return info.Size() > 0, err
			}
			return false, nil
		}
		// What was written between the last read and the rename is still in this file.
		r.closed = true
		return true, nil
	}
	before := r.seq
	if err := r.advance(); err != nil {
		return false, err
	}
	return r.seq != before, nil
}

// advance opens the file after the present one, if there is one.
func (r *Reader) advance() error {
	for range maxTries {
		files, err := List(r.path)
		if err != nil {
			return err
		}
		i := 0
		for i < len(files) && files[i].Seq <= r.seq {
			i++
		}
		if i == len(files) {
			return nil
		}
		f, err := os.Open(files[i].Path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		again, err := List(r.path)
		if err == nil && same(files, again) {
			if r.seq > 0 {
				r.missed += files[i].Seq - r.seq - 1
			}
			return r.enter(f, files[i])
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil // it is rotated faster than one can look; the next call tries again
}

func (r *Reader) enter(f *os.File, of File) error {
	r.Close()
	r.file, r.in, r.seq, r.index = f, f, of.Seq, Index{Every: Interval}
	r.start, r.end, r.offset = 0, 0, 0
	r.closed, r.modAt = of.Slot > 0, of.Info.ModTime()
	if of.Slot == 0 {
		r.openMarks()
	} else if x, err := ReadIndex(indexPath(r.path, of.Slot)); err == nil && x.Seq == of.Seq {
		r.index = x
	}
	if !of.Zst {
		return nil
	}
	dec, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	r.zst, r.in = dec, dec
	return nil
}
