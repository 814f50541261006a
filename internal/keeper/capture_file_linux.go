package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/logfile"
)

const (
	// lineWait is how long a file that is to be rotated now is kept for the end of a line that was begun.
	lineWait = time.Second
	// lookEvery is how often it is checked that the log still has its name.
	lookEvery = time.Second
)

// The functions of this file, but for rotateIdle and rotateEnded, are called with shared.mu held.

// open opens the log as it is, or makes it. Its index comes first, so that no reader finds a file without one.
func (c *capture) open() error {
	path := c.spec.Path
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	size := int64(-1)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode().IsRegular():
		size = info.Size()
	case info.IsDir():
		return &fs.PathError{Op: "open", Path: path, Err: unix.EISDIR}
	case info.Mode()&fs.ModeCharDevice == 0:
		return &fs.PathError{Op: "open", Path: path, Err: errors.New("neither a file nor a character device")}
	}
	c.device = err == nil && size < 0
	c.byCopy = c.device
	c.openIndex(size)
	// Without O_APPEND, which splice refuses; it writes at the size that the file has. O_NONBLOCK: should the name have
	// become a FIFO's by now, nothing hangs.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err != nil {
		c.closeFile()
		return err
	}
	_ = f.Fd() // blocking again: a write that finds no room must fail, not wait for a poller
	c.file, c.of, c.limit, c.looked = f, c.shared.generation, c.spec.MaxBytes, time.Now()
	return nil
}

// openIndex opens the index of a file of that size. Without one, times are not known; so be it.
func (c *capture) openIndex(size int64) {
	if c.device || c.shared.index != nil {
		return
	}
	above := uint64(0)
	if size < 0 {
		above = c.shared.seq
	}
	x, err := logfile.OpenIndex(c.spec.Path, size, above)
	if err != nil {
		c.log.Warn("log has no index, times of its lines are not known", "path", c.spec.Path, "error", err)
		return
	}
	c.shared.index, c.shared.seq = x, x.Seq()
}

func (c *capture) closeFile() {
	if c.file != nil {
		_ = c.file.Close() // every write's error was seen
		c.file = nil
	}
}

// firstOutput is when the first byte of the present file came.
func (c *capture) firstOutput() time.Time {
	if c.shared == nil {
		return time.Time{}
	}
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	return c.shared.index.First()
}

// measure returns the present size of the file, which is where output goes: whoever truncates a log, or writes a line to
// it, destroys nothing. It marks the time. ok is false when the file had to be opened anew, or could not be.
func (c *capture) measure() (size int64, ok bool) {
	if c.device {
		return 0, true
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(c.file.Fd()), &stat); err != nil {
		c.fail(err)
		return 0, false
	}
	now := time.Now()
	c.now = now
	rotated := c.of != c.shared.generation // by the other capture of this log
	if rotated || stat.Nlink == 0 || now.Sub(c.looked) >= lookEvery && !c.named(&stat) {
		if !rotated {
			c.shared.moved() // removed or renamed by somebody else
		}
		c.closeFile()
		if err := c.open(); err != nil {
			c.fail(err)
		}
		return 0, false
	}
	if now.Sub(c.looked) >= lookEvery {
		c.looked = now
		c.openIndex(stat.Size) // if it could not be before
	}
	c.mark(now, stat.Size)
	return stat.Size, true
}

// named says whether the log's name is still that of the open file.
func (c *capture) named(open *unix.Stat_t) bool {
	var stat unix.Stat_t
	err := unix.Stat(c.spec.Path, &stat)
	return err == nil && stat.Ino == open.Ino && stat.Dev == open.Dev
}

func (c *capture) mark(now time.Time, offset int64) {
	x := c.shared.index
	if x == nil {
		return
	}
	fresh := x.First().IsZero()
	if err := x.Mark(now, offset); err != nil {
		c.shared.closeIndex()
		return
	}
	if fresh && c.spec.Age > 0 {
		c.asked.Store(true) // its age begins
	}
}

// endsLine says whether the file's last byte is the end of a line.
func (c *capture) endsLine(size int64) bool {
	var last [1]byte
	n, err := c.file.ReadAt(last[:], size-1)
	return n == 1 && err == nil && last[0] == '\n'
}

// mayCut says whether a file that is to be rotated can be as it is: at a line's end, or when that does not come.
func (c *capture) mayCut(size int64) bool {
	return c.endsLine(size) || c.limit > 0 && size-c.limit >= lineSlack || c.due && !time.Now().Before(c.cutAt)
}

// rotateSoon has the file rotated at the end of the present line.
func (c *capture) rotateSoon() {
	c.due, c.cutAt = true, time.Now().Add(lineWait)
}

// rotateIdle rotates a file that is due while no output comes.
func (c *capture) rotateIdle() {
	if c.shared != nil {
		c.shared.mu.Lock()
		defer c.shared.mu.Unlock()
	}
	if c.file == nil || c.device {
		c.rotated(c.notOpen())
		return
	}
	info, err := c.file.Stat()
	switch {
	case err != nil:
		c.rotated(err)
	case info.Size() == 0:
		c.rotated(nil)
	case c.mayCut(info.Size()):
		c.rotateFile(info.Size())
	}
}

func (c *capture) notOpen() error {
	if c.device {
		return misuse("not-rotated", fmt.Sprintf("%s is no file", c.spec.Path), "")
	}
	return failure("log", fmt.Sprintf("log %s cannot be written", c.spec.Path), "", c.gapCause)
}

// rotateFile begins a new file.
func (c *capture) rotateFile(size int64) {
	c.logs.names.Lock()
	err := logfile.Shift(c.spec.Path, c.spec.Keep)
	c.logs.names.Unlock()
	if err != nil {
		// The file goes on, and is tried again after as much output once more.
		c.log.Warn("log not rotated", "path", c.spec.Path, "error", err)
		if c.limit > 0 {
			c.limit = size + c.spec.MaxBytes
		}
		c.rotated(err)
		return
	}
	c.shared.moved()
	c.closeFile()
	err = c.open()
	if err != nil {
		c.fail(err)
	}
	if c.spec.Compress {
		c.logs.compress(c.spec.Path)
	}
	c.rotated(err)
}

// rotated answers those who asked for a rotation.
func (c *capture) rotated(err error) {
	for _, answer := range c.answers {
		answer <- err
	}
	c.due, c.answers = false, nil
	c.asked.Store(true) // the new file has another age
}

// rotateEnded rotates the log of a process that has ended.
func (c *capture) rotateEnded() error {
	if c.want.Path == "" {
		return misuse("not-rotated", "its output is discarded", "")
	}
	shared := c.logs.join(c.want.Path)
	defer c.logs.part(c.want.Path, shared)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	info, err := os.Stat(c.want.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (info.Size() == 0 || !info.Mode().IsRegular()) {
		return nil
	}
	if err != nil {
		return err
	}
	c.logs.names.Lock()
	defer c.logs.names.Unlock()
	if err := logfile.Shift(c.want.Path, c.want.Keep); err != nil {
		return err
	}
	shared.moved()
	if c.want.Compress {
		c.logs.compress(c.want.Path)
	}
	return nil
}
