package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/sink"
	"github.com/klauspost/compress/zstd"
)

const (
	extension = ".ndjson.zst"
	unfinish  = ".part"
)

// folder is the files of one source.
type folder struct {
	dir   string
	limit int64
	lock  *os.File // held by flock as long as it is open

	mu        sync.Mutex
	watermark uint64 // end of the last finished file
	taken     uint64 // sequence of the last frame appended; the watermark when there is no part
	part      *os.File
	size      int64  // bytes of whole frames in part; what lies behind is overwritten or cut off
	synced    bool   // part is complete on the disk and closed; only its name is missing
	lines     []byte // of one frame; reused, as is encoded
	encoded   []byte
}

// load reads the finished files, removes unfinished ones and forgets the current one.
func (f *folder) load() error {
	if err := f.abandon(); err != nil {
		return err
	}
	entries, err := os.ReadDir(f.dir) // sorted by name, and so by range
	if err != nil {
		return fmt.Errorf("read folder of files: %w", err)
	}
	var end uint64
	last := ""
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), unfinish) {
			if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil {
				return fmt.Errorf("remove unfinished file: %w", err)
			}
			continue
		}
		lo, hi, ok := parseName(e.Name())
		if !ok {
			continue // not ours
		}
		if last != "" && lo != end+1 {
			return f.broken(last, e.Name(), lo <= end)
		}
		end, last = hi, e.Name()
	}
	f.watermark, f.taken = end, end
	// Names of an earlier process may have been in memory only; what the watermark says must stay true from here on.
	return syncDir(f.dir)
}

// broken is the fault of two neighbours whose ranges do not meet.
func (f *folder) broken(before, after string, overlap bool) error {
	e := &fault.Error{
		Code: "file/gap", Where: f.dir, What: fmt.Sprintf("files between %s and %s are missing", before, after),
		Fix: "put them back, or move " + before + " and all older ones away too",
	}
	if overlap {
		e.Code, e.What = "file/overlap", fmt.Sprintf("%s and %s hold the same events", before, after)
		e.Fix = "move away the one that was not written by this sink"
	}
	return e
}

// append puts one frame's payload behind the others. After an error the frame is not taken and can be appended again.
func (f *folder) append(payload []byte, seq uint64) error {
	if f.part == nil {
		part, err := os.OpenFile(filepath.Join(f.dir, fmt.Sprintf("%020d%s", f.watermark+1, unfinish)),
			os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("create file: %w", err)
		}
		f.part, f.size, f.synced = part, 0, false
	}
	if _, err := f.part.WriteAt(payload, f.size); err != nil {
		return fmt.Errorf("append frame %d: %w", seq, err)
	}
	f.size += int64(len(payload))
	f.taken = seq
	return nil
}

// rotate finishes the current file when it is large enough, or when finishing it was begun.
func (f *folder) rotate() error {
	if f.part == nil || (f.size < f.limit && !f.synced) {
		return nil
	}
	return f.finish(nil)
}

// finish gives the current file its name. It may be called again after an error.
func (f *folder) finish(encoder *zstd.Encoder) error {
	if f.part == nil || f.taken == f.watermark {
		return nil
	}
	if f.size == 0 {
		nothing := encoder.EncodeAll(nil, nil)
		if _, err := f.part.WriteAt(nothing, 0); err != nil {
			return fmt.Errorf("write empty file: %w", err)
		}
		f.size = int64(len(nothing))
	}
	if !f.synced {
		if err := f.part.Truncate(f.size); err != nil {
			return fmt.Errorf("cut off the end of a failed write: %w", err)
		}
		if err := f.part.Sync(); err != nil {
			// The kernel reports a lost page once and then believes it clean: a second sync would succeed for nothing.
			return errors.Join(fmt.Errorf("sync %s: %w: %w", f.part.Name(), sink.ErrLost, err), f.abandon())
		}
		// The content is on the disk; closing can add nothing and lose nothing.
		_ = f.part.Close()
		f.synced = true
	}
	name := filepath.Join(f.dir, fileName(f.watermark+1, f.taken))
	if err := os.Rename(f.part.Name(), name); err != nil {
		return fmt.Errorf("name finished file: %w", err)
	}
	f.watermark, f.part = f.taken, nil
	if err := syncDir(f.dir); err != nil {
		return fmt.Errorf("%w: %w", sink.ErrLost, err) // whether the name lasts is told by the next load
	}
	return nil
}

// abandon throws the current file away.
func (f *folder) abandon() error {
	if f.part == nil {
		return nil
	}
	part, closed := f.part, f.synced
	f.part, f.size, f.synced, f.taken = nil, 0, false, f.watermark
	var errs []error
	if !closed {
		errs = append(errs, part.Close())
	}
	return errors.Join(append(errs, os.Remove(part.Name()))...)
}

// fileName names the file of the frames first to last. 20 digits hold every sequence, so that names sort like numbers.
func fileName(first, last uint64) string { return fmt.Sprintf("%020d-%020d%s", first, last, extension) }

// parseName reads what fileName wrote.
func parseName(name string) (first, last uint64, ok bool) {
	stem, ok := strings.CutSuffix(name, extension)
	if !ok {
		return 0, 0, false
	}
	lo, hi, ok := strings.Cut(stem, "-")
	if !ok {
		return 0, 0, false
	}
	first, err1 := strconv.ParseUint(lo, 10, 64)
	last, err2 := strconv.ParseUint(hi, 10, 64)
	if err1 != nil || err2 != nil || first == 0 || last < first || fileName(first, last) != name {
		return 0, 0, false
	}
	return first, last, true
}
