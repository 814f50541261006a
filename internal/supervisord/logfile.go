//go:build linux

package supervisord

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// logfile is a file that output is appended to, rotated by size under Supervisor's names: f to f.1, f.1 to f.2. It is
// safe for concurrent use.
type logfile struct {
	path     string
	maxBytes int64 // 0 never rotates
	backups  int   // 0 empties the file instead of renaming it
	written  func(path string)

	mu     sync.Mutex
	file   *os.File // nil while it could not be opened
	size   int64    // of a regular file; -1 for anything else, which is never rotated
	lost   int64    // bytes that could not be written since the last that could
	lostBy error
	gap    func(lost int64, err error) // told when writing works again
}

// openLog opens or makes the file.
func openLog(path string, maxBytes int64, backups int) (*logfile, error) {
	l := &logfile{path: path, maxBytes: maxBytes, backups: backups}
	return l, l.open(os.O_APPEND)
}

func (l *logfile) open(how int) error {
	// O_NONBLOCK: a named pipe without a reader must not hold up the daemon. It has no effect on a regular file.
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|how|unix.O_NONBLOCK, 0o666) // umask decides, as everywhere
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, -1
	if info.Mode().IsRegular() {
		l.size = info.Size()
	}
	return nil
}

// Write appends data and rotates the file once it has reached its size. It never fails the writer: what cannot be
// written is counted and told when writing works again.
func (l *logfile) Write(data []byte) (int, error) {
	l.mu.Lock()
	n, err := l.writeLocked(data)
	var lost int64
	var cause error
	if err != nil {
		l.lost += int64(len(data) - n)
		l.lostBy = err
	} else if l.lost > 0 {
		lost, cause = l.lost, l.lostBy
		l.lost, l.lostBy = 0, nil
	}
	l.mu.Unlock()
	if lost > 0 && l.gap != nil {
		l.gap(lost, cause)
	}
	if l.written != nil {
		l.written(l.path)
	}
	return len(data), nil
}

func (l *logfile) writeLocked(data []byte) (int, error) {
	if l.file == nil {
		if err := l.open(os.O_APPEND); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(data)
	if l.size >= 0 {
		l.size += int64(n)
		if l.maxBytes > 0 && l.size >= l.maxBytes {
			err = errors.Join(err, l.rotateLocked())
		}
	}
	return n, err
}

func (l *logfile) rotateLocked() error {
	err := l.file.Close()
	l.file = nil
	if l.backups > 0 {
		for i := l.backups - 1; i > 0; i-- {
			err = errors.Join(err, rename(fmt.Sprintf("%s.%d", l.path, i), fmt.Sprintf("%s.%d", l.path, i+1)))
		}
		err = errors.Join(err, rename(l.path, l.path+".1"))
	}
	return errors.Join(err, l.open(os.O_APPEND|os.O_TRUNC))
}

// rename is silent about a file that is not there: it may have been cleaned up by hand.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Reopen opens the path anew, after somebody moved the file away.
func (l *logfile) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reopenLocked()
}

func (l *logfile) reopenLocked() error {
	l.closeLocked()
	return l.open(os.O_APPEND)
}

// Remove takes the file away and makes it anew.
func (l *logfile) Remove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked()
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, l.open(os.O_APPEND))
	}
	return l.open(os.O_APPEND)
}

// Close closes the file.
func (l *logfile) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked()
}

func (l *logfile) closeLocked() {
	if l.file != nil {
		_ = l.file.Close() // every write has been checked
		l.file = nil
	}
}
