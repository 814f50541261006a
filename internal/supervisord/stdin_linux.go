package supervisord

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxStdinBytes bounds what waits to be written to one child that does not read.
const maxStdinBytes = 16 << 20

var errStdinFull = errors.New("the process does not read its stdin")

// stdin is the writing end of a child's standard input. The loop owns it; what the pipe does not take at once is written
// by a goroutine when it does.
type stdin struct {
	pipe *os.File
	loop interface {
		background(func())
		post(func())
	}

	waiting []byte // not yet given to the goroutine
	writing bool   // the goroutine is at work
	closed  bool
}

// write sends data. unix.EPIPE means that the child has closed its end.
func (s *stdin) write(data []byte) error {
	if s.closed {
		return unix.EPIPE
	}
	if s.writing {
		if len(s.waiting)+len(data) > maxStdinBytes {
			return errStdinFull
		}
		s.waiting = append(s.waiting, data...)
		return nil
	}
	n, err := s.now(data)
	if err != nil {
		return err
	}
	if n < len(data) {
		s.waiting = append(s.waiting, data[n:]...)
		s.later()
	}
	return nil
}

// now writes what the pipe takes without waiting.
func (s *stdin) now(data []byte) (int, error) {
	conn, err := s.pipe.SyscallConn()
	if err != nil {
		return 0, unix.EPIPE
	}
	sent := 0
	var failed error
	err = conn.Write(func(fd uintptr) bool {
		for sent < len(data) && failed == nil {
			var n int
			n, failed = unix.Write(int(fd), data[sent:])
			if failed == unix.EINTR {
				failed = nil
				continue
			}
			sent += max(n, 0)
		}
		return true
	})
	if err == nil && failed != nil && failed != unix.EAGAIN {
		err = failed
	}
	return sent, err
}

// later hands what waits to a goroutine, which the end of the pipe ends.
func (s *stdin) later() {
	data := s.waiting
	s.waiting, s.writing = nil, true
	s.loop.background(func() {
		_, err := s.pipe.Write(data)
		s.loop.post(func() {
			s.writing = false
			if err != nil {
				s.waiting = nil
				s.close()
			} else if len(s.waiting) > 0 {
				s.later()
			}
		})
	})
}

func (s *stdin) close() {
	if !s.closed {
		s.closed = true
		_ = s.pipe.Close() // a pipe has nothing to flush
	}
}
