package supervisord

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readBytes is what one read takes at most; Supervisor's is the same, and events carry what one read gave.
	readBytes = 128 << 10
	// leftoverBytes bounds what is read of a child's output after its end. A pipe holds 64 KiB, 1 MiB if enlarged; what
	// comes beyond that is written by somebody who outlived the child.
	leftoverBytes = 1 << 20
)

// readBuffers are shared by all readers, so that a silent child costs none.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, readBytes); return &b }}

var (
	errWoken = errors.New("reader woken")
	errEmpty = errors.New("nothing to read")
)

// output is the reading end of one channel of a child. Its reader runs until the channel ends or drain is called.
type output struct {
	pipe     *os.File
	take     func(data []byte) // called by the reader alone
	end      func()            // after the last take; may be nil
	draining atomic.Bool
	done     chan struct{}
}

// newPipe makes a pipe whose end for the daemon (0 reads, 1 writes) does not block; the child's does, as programs expect.
func newPipe(ours int) (daemon, child *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(fds[ours], true); err != nil {
		_ = unix.Close(fds[0]) // nothing was written
		_ = unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[ours]), "pipe"), os.NewFile(uintptr(fds[1-ours]), "pipe"), nil
}

// run reads until there is nothing more to come.
func (o *output) run() {
	defer close(o.done)
	defer o.pipe.Close()
	if o.end != nil {
		defer o.end()
	}
	conn, err := o.pipe.SyscallConn()
	if err != nil {
		return // closed before it began
	}
	for !o.draining.Load() {
		if _, err := o.read(conn, true); err != nil && err != errWoken {
			return
		}
	}
	for left := leftoverBytes; left > 0; {
		// The deadline that woke the reader would keep it from reading the rest, and may come as late as here.
		_ = o.pipe.SetReadDeadline(time.Time{})
		n, err := o.read(conn, false)
		if err != nil && err != errWoken {
			return
		}
		left -= n
	}
}

// read takes what is there once, and waits for it if wait is set. A buffer is held only while there is something in it.
func (o *output) read(conn syscall.RawConn, wait bool) (int, error) {
	var buf *[]byte
	var n int
	var failed error
	err := conn.Read(func(fd uintptr) bool {
		buf = readBuffers.Get().(*[]byte)
		for {
			if n, failed = unix.Read(int(fd), *buf); failed != unix.EINTR {
				break
			}
		}
		if failed == unix.EAGAIN && wait {
			readBuffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf == nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, errWoken
		}
		return 0, err
	}
	defer readBuffers.Put(buf)
	switch {
	case failed == unix.EAGAIN:
		return 0, errEmpty
	case failed != nil:
		return 0, failed
	case n <= 0:
		return 0, errors.New("channel has ended")
	}
	o.take((*buf)[:n])
	return n, nil
}

// drain makes the reader take what the pipe holds and end, even if somebody else has the other end open.
func (o *output) drain() {
	o.draining.Store(true)
	_ = o.pipe.SetReadDeadline(time.Unix(1, 0)) // fails only when the reader has closed it
}
