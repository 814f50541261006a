package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	// captureBytes is the buffer of one process: the size of a pipe, so that one read empties it.
	captureBytes = 64 << 10
	// logRetry is how long after a failed write the log is tried again.
	logRetry = time.Second
)

// capture copies the output of one process into its log. It never stops reading: when the log cannot be written the
// bytes are counted and dropped, so a full disk does not stop a service.
type capture struct {
	pipe    *os.File
	spec    Log
	log     *slog.Logger
	dropped atomic.Uint64
	done    chan struct{}
	matcher *lineMatcher // set before run; nil looks for nothing

	// Owned by run.
	file      *os.File // nil after a failed write, until it is opened again
	size      int64
	lineStart bool
	retry     time.Time
}

// newCapture opens the log; run copies into it. pipe is owned by the capture from then on.
func newCapture(spec Log, log *slog.Logger) (*capture, error) {
	c := &capture{spec: spec, log: log, done: make(chan struct{})}
	if spec.Path == "" {
		return c, nil
	}
	if err := c.open(); err != nil && !transient(err) {
		return nil, err
	}
	return c, nil
}

// resumeCapture goes on with the log of a process that an earlier keeper started. A log that cannot be opened now is
// tried again, as after a failed write. The caller sets pipe.
func resumeCapture(spec Log, log *slog.Logger) *capture {
	c := &capture{spec: spec, log: log, done: make(chan struct{})}
	if spec.Path != "" {
		if err := c.open(); err != nil {
			c.fail(err)
		}
	}
	return c
}

// abandon gives up the pipe, which ends run.
func (c *capture) abandon() {
	if c.pipe != nil {
		_ = c.pipe.Close() // read side: nothing to lose
	}
}

// run copies until the last writer of the pipe is gone, or abandon.
func (c *capture) run() {
	defer close(c.done)
	defer c.close()
	buf := make([]byte, captureBytes)
	for {
		n, err := c.pipe.Read(buf)
		if n > 0 && c.matcher != nil && c.matcher.feed(buf[:n]) {
			c.matcher = nil
		}
		if n > 0 && c.spec.Path != "" {
			c.write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// await waits until all output is in the log, at most for d; then it gives up the pipe.
func (c *capture) await(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		_ = c.pipe.Close() // ends the read; run sees the error
		<-c.done
	}
}

func (c *capture) close() {
	if c.pipe != nil {
		_ = c.pipe.Close() // read side: nothing to lose
	}
	if c.file != nil {
		_ = c.file.Close() // every write's error was seen
		c.file = nil
	}
}

func (c *capture) write(p []byte) {
	for len(p) > 0 {
		if c.file == nil && !c.reopen() {
			c.dropped.Add(uint64(len(p)))
			return
		}
		n, rotate := len(p), false
		if c.spec.MaxBytes > 0 {
			n, rotate = cut(p, c.spec.MaxBytes-c.size, c.lineStart && c.size > 0)
		}
		written, err := c.file.Write(p[:n])
		c.size += int64(written)
		if written > 0 {
			c.lineStart = p[written-1] == '\n'
		}
		if err != nil {
			c.dropped.Add(uint64(len(p) - written))
			c.fail(err)
			return
		}
		p = p[n:]
		if rotate {
			c.rotate()
		}
	}
}

// cut says how much of p still goes into a file that has room bytes left, and whether the file is rotated then. Files
// end with a line's end, so the rest of a line may go beyond the limit; a line that goes on for another buffer is cut.
func cut(p []byte, room int64, lineStart bool) (n int, rotate bool) {
	if int64(len(p)) <= room {
		return len(p), false
	}
	if room > 0 {
		if i := bytes.LastIndexByte(p[:room], '\n'); i >= 0 {
			return i + 1, true
		}
	}
	if lineStart {
		return 0, true
	}
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		return i + 1, true
	}
	return len(p), room < -captureBytes
}

func (c *capture) rotate() {
	if c.file != nil {
		_ = c.file.Close() // every write's error was seen
		c.file = nil
	}
	if err := shift(c.spec.Path, c.spec.Keep); err != nil {
		c.log.Warn("log not rotated", "path", c.spec.Path, "error", err)
	}
	if err := c.open(); err != nil {
		c.fail(err)
		return
	}
	// When the file could not be moved it is kept, and tried again after as much output once more.
	c.size, c.lineStart = 0, true
}

// shift moves path to path.1, path.1 to path.2 and so on; what would be path.(keep+1) is dropped.
func shift(path string, keep int) error {
	if keep <= 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	for i := keep; i > 0; i-- {
		from := path
		if i > 1 {
			from = fmt.Sprintf("%s.%d", path, i-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (c *capture) open() error {
	if err := os.MkdirAll(filepath.Dir(c.spec.Path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(c.spec.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.file, c.size, c.lineStart = f, info.Size(), true
	return nil
}

// reopen tries to open a log that failed, once every logRetry.
func (c *capture) reopen() bool {
	if time.Now().Before(c.retry) {
		return false
	}
	if err := c.open(); err != nil {
		c.retry = time.Now().Add(logRetry)
		return false
	}
	c.log.Info("log is written again", "path", c.spec.Path, "dropped_bytes", c.dropped.Load())
	return true
}

func (c *capture) fail(err error) {
	c.log.Warn("log cannot be written, output is dropped", "path", c.spec.Path, "error", err)
	if c.file != nil {
		_ = c.file.Close() // the write's error says more
		c.file = nil
	}
	c.retry = time.Now().Add(logRetry)
}
