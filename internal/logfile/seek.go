package logfile

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Since places the reader so that no line that was captured at t or later is left out; earlier ones that the index cannot
// tell apart from those may come first.
func (r *Reader) Since(t time.Time) error {
	files, err := List(r.path)
	if err != nil {
		return err
	}
	// Backwards: clocks jump, and the file before the first that begins before t may end after it.
	first := 0
	for i := len(files) - 1; i > 0; i-- {
		x, err := ReadIndex(indexPath(r.path, files[i].Slot))
		if err == nil && len(x.marks) > 0 && x.marks[0].time < t.Add(-x.Every).UnixNano() || files[i-1].Info.ModTime().Before(t.Add(-x.Every)) {
			first = i
			break
		}
	}
	if err := r.goTo(files, first); err != nil || r.file == nil {
		return err
	}
	return r.skip(r.index.From(t))
}

// Tail places the reader before the last n lines of the log's whole history, or at its end with 0.
func (r *Reader) Tail(n int) error {
	files, err := List(r.path)
	if err != nil || len(files) == 0 {
		return err
	}
	if n <= 0 {
		if err := r.goTo(files, len(files)-1); err != nil || r.file == nil {
			return err
		}
		offset, _, err := lastLines(files[len(files)-1], 0)
		return errors.Join(err, r.skip(offset))
	}
	for i := len(files) - 1; ; i-- {
		offset, found, err := lastLines(files[i], n)
		if errors.Is(err, os.ErrNotExist) {
			return r.Tail(n) // rotated just now
		}
		if err != nil {
			return err
		}
		if n -= found; n <= 0 || i == 0 {
			if err := r.goTo(files, i); err != nil || r.file == nil {
				return err
			}
			return r.skip(offset)
		}
	}
}

// goTo makes files[i] the next file, or the one after it when it is gone.
func (r *Reader) goTo(files []File, i int) error {
	if len(files) == 0 {
		return nil
	}
	r.Close()
	r.missed, r.seq = 0, 0
	if files[i].Seq > 0 {
		r.seq = files[i].Seq - 1
	}
	return r.advance()
}

// skip goes to an offset of the present file.
func (r *Reader) skip(offset int64) error {
	if offset <= 0 {
		return nil
	}
	if r.zst == nil {
		_, err := r.file.Seek(offset, io.SeekStart)
		r.offset = offset
		return err
	}
	n, err := io.CopyN(io.Discard, r.in, offset)
	r.offset = n
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// lastLines returns where the last n lines of a file begin, and how many there are, n at most. With n 0 it is the end of
// the file.
func lastLines(of File, n int) (offset int64, found int, err error) {
	f, err := os.Open(of.Path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if of.Zst {
		return lastOfStream(f, n)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, 0, err
	}
	buf := make([]byte, 64<<10)
	// A line's end at the very end of the file ends its last line and begins none.
	for at := end; at > 0; {
		size := min(at, int64(len(buf)))
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil {
			return 0, 0, err
		}
		for i := size; ; {
			j := bytes.LastIndexByte(buf[:i], '\n')
			if j < 0 {
				break
			}
			i = int64(j)
			if at+i+1 == end {
				continue
			}
			if found++; found == n {
				return at + i + 1, n, nil
			}
		}
	}
	if end > 0 {
		found++
	}
	return 0, found, nil
}

// lastOfStream is lastLines of a compressed file, which can only be read from its beginning.
func lastOfStream(f *os.File, n int) (offset int64, found int, err error) {
	dec, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return 0, 0, err
	}
	defer dec.Close()
	var starts []int64 // of the last n lines, as a ring once there are n
	next, at, fresh := 0, int64(0), true
	in := bufio.NewReaderSize(dec, 64<<10)
	for {
		part, err := in.ReadSlice('\n')
		if len(part) > 0 && fresh {
			if len(starts) < n {
				starts = append(starts, at)
			} else if n > 0 {
				starts[next] = at
				next = (next + 1) % n
			}
		}
		at += int64(len(part))
		fresh = err == nil
		if err == nil || errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, bufio.ErrBufferFull) {
				fresh = false
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		if len(starts) == 0 {
			return at, 0, nil
		}
		return starts[next%len(starts)], len(starts), nil
	}
}
