// Package file writes streams into folders of compressed files, one JSON document a line:
//
//	DIR/STREAM/00000000000000000001-00000000000000004711.ndjson.zst
//
// A file's name is the range of the stream's sequences that it covers; consecutive files cover consecutive ranges, so
// the names alone prove that nothing is missing and nothing is twice. The last name is the watermark. A file appears
// under its name in one act, complete and synced to the disk; what is still being written ends in .part and is thrown
// away at the next start, because the stream has it.
//
// Frames of streams with zstd compression are copied as they are stored: their payload is compressed lines already, and
// compressed payloads one after the other are one compressed file. Others are compressed on the way. Reading such a file
// needs nothing but zstd.
//
// Files may be moved away at any time, oldest first. Leave the newest one of each stream: without it the sink begins the
// stream again.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/sink"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// DefaultRotateBytes is the size at which a file is finished: large enough for object stores and column converters to
// like it, small enough to be written again after a crash in a second.
const DefaultRotateBytes = 64 << 20

// Config tunes a Target. The zero Config is ready for production. When a file is finished by age is the Sink's
// Config.FlushAge.
type Config struct {
	// RotateBytes is the size of compressed bytes at which a file is finished; it ends with the frame that reaches it.
	// Zero means DefaultRotateBytes.
	RotateBytes int64

	// CheckLines makes the target look into every frame for events that hold a newline, which would be two lines in the
	// file; such an event is compacted, or refused when it is no JSON. It costs a decompression of the stream, some 2 ms
	// of a core for each megabyte. Streams that only Hozo's ingest or encoding/json write to do not need it. Messages
	// that are no frames, and frames of s2 streams, are always looked at.
	CheckLines bool
}

// Target is a folder of files. It is a sink.Target; every source has a folder of its own in it.
type Target struct {
	dir     string
	cfg     Config
	encoder *zstd.Encoder // EncodeAll is safe for concurrent use

	mu      sync.Mutex
	sources map[string]*folder
}

var _ sink.Target = (*Target)(nil)

// sourcePattern is what streams are called; nothing else becomes the name of a folder.
var sourcePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// Open returns a Target in dir, which is created when it is missing.
func Open(dir string, cfg Config) (*Target, error) {
	cfg.RotateBytes = cmp.Or(cfg.RotateBytes, DefaultRotateBytes)
	if cfg.RotateBytes < 0 {
		return nil, &fault.Error{
			Code: "file/config", Kind: fault.Misuse, Where: "to.rotate.bytes",
			What: fmt.Sprintf("files cannot be finished at %d bytes", cfg.RotateBytes), Fix: "give a size over 0, such as 64MiB",
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of files: %w", err)
	}
	encoder, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), // only frames of streams without compression come here
		zstd.WithWindowSize(1<<20),
		zstd.WithZeroFrames(true)) // a file whose events were all parked is an empty but valid one
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &Target{dir: dir, cfg: cfg, encoder: encoder, sources: make(map[string]*folder)}, nil
}

// Watermark locks the source's folder, removes what an earlier writer left unfinished and returns the end of the last
// file. Errors are the faults file/locked, while another process writes there, and file/gap or file/overlap.
func (t *Target) Watermark(_ context.Context, source string) (uint64, error) {
	if !sourcePattern.MatchString(source) {
		return 0, &fault.Error{Code: "file/config", Kind: fault.Misuse, What: fmt.Sprintf("%q cannot name a folder", source)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.sources[source]
	if f == nil {
		f = &folder{dir: filepath.Join(t.dir, source), limit: t.cfg.RotateBytes}
		if err := f.claim(t.dir); err != nil {
			return 0, err
		}
		t.sources[source] = f
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return 0, err
	}
	return f.watermark, nil
}

// Write copies the batch's frames into the source's current file and finishes it when it is large enough.
func (t *Target) Write(_ context.Context, b sink.Batch) (uint64, error) {
	f, err := t.folder(b.Source)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var poison []sink.Poison
	for _, frame := range b.Frames {
		if frame.Seq > f.taken {
			poison = append(poison, t.misfits(b, frame)...)
		}
	}
	if len(poison) > 0 {
		return 0, &sink.RowError{Rows: poison}
	}
	for _, frame := range b.Frames {
		if frame.Seq <= f.taken {
			continue
		}
		if err := f.rotate(); err != nil {
			return 0, err
		}
		payload, err := t.payload(f, b, frame)
		if err != nil {
			return 0, err
		}
		if err := f.append(payload, frame.Seq); err != nil {
			return 0, err
		}
	}
	if err := f.rotate(); err != nil {
		return 0, err
	}
	return f.watermark, nil
}

// Flush finishes the source's current file.
func (t *Target) Flush(_ context.Context, source string) (uint64, error) {
	f, err := t.folder(source)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.finish(t.encoder); err != nil {
		return 0, err
	}
	return f.watermark, nil
}

// Close gives up what is not finished and unlocks the folders.
func (t *Target) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, f := range t.sources {
		f.mu.Lock()
		errs = append(errs, f.abandon(), f.lock.Close())
		f.mu.Unlock()
	}
	clear(t.sources)
	return errors.Join(append(errs, t.encoder.Close())...)
}

func (t *Target) folder(source string) (*folder, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.sources[source]
	if f == nil {
		return nil, fmt.Errorf("write %s: Watermark was not called for it", source)
	}
	return f, nil
}

// claim creates the folder and locks it for this process. The kernel drops the lock when the process ends, however it
// ends.
func (f *folder) claim(parent string) error {
	if err := os.Mkdir(f.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create folder of files: %w", err)
	}
	if err := syncDir(parent); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(f.dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(&fault.Error{
			Code: "file/locked", Where: f.dir, What: "another process writes into the folder", Err: err,
			Fix: "stop it, or name another folder under to.file",
		}, lock.Close())
	}
	f.lock = lock
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder to sync it: %w", err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync folder %s: %w", dir, err), d.Close())
	}
	return d.Close()
}
