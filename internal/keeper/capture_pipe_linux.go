package keeper

import (
	"bytes"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMove bounds one splice, so that a flood is left often enough to attend to other things. It is the largest pipe
	// that a user without rights may have.
	maxMove = 1 << 20
	// pipeBytes is what Linux gives a pipe.
	pipeBytes = 64 << 10
	// largeBytes is what a pipe gets through which much flows: its process and the capture then sleep and wake a fraction as
	// often. BenchmarkCapture has the figures.
	largeBytes = 1 << 20
	// floodBytes within floodTime is much: 40 MB/s, and more than bursts bring. How full the pipe is found says nothing, for
	// a capture that keeps up finds what one write has left, however much is yet to come.
	floodBytes = 2 << 20
	floodTime  = 50 * time.Millisecond
	// maxLarge bounds the large pipes of a keeper. Pipes of a user share 64 MiB (fs.pipe-user-pages-soft); beyond it every
	// new pipe, those inside services too, gets two pages. 16 large ones take a quarter of that.
	maxLarge = 16
	// lineSlack is how far beyond its limit a file may go to end at a line's end: one pipe, so one look finds it.
	lineSlack = pipeBytes
)

// turn moves what waits in the pipe, once.
func (c *capture) turn(pipe int) outcome {
	if c.spec.Path == "" {
		_, out := c.take(pipe)
		return out
	}
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	if c.file == nil && !c.reopen() {
		return c.unwritten(pipe)
	}
	size, ok := c.measure()
	if !ok {
		return again
	}
	shared := !c.device && c.shared.users.Load() > 1
	if shared && unread(pipe) > 0 && c.yields(pipe, size) {
		return blocked
	}
	n := maxMove
	if c.due || c.limit > 0 && size >= c.limit {
		if n = c.toLineEnd(pipe, size); n == 0 {
			return again
		}
	} else if c.limit > 0 {
		n = int(min(int64(n), c.limit-size))
	}
	if shared {
		var out outcome
		if n, out = c.wholeLines(pipe, size, n); n == 0 {
			return out
		}
	}
	if c.matcher != nil {
		data, out := c.peek(pipe, n)
		if len(data) == 0 {
			return out
		}
		c.look(data)
		n = len(data)
	}
	moved, out := c.move(pipe, size, n)
	c.seen = max(0, c.seen-moved)
	if moved > 0 && !c.device {
		c.wrote(size + int64(moved))
	}
	return out
}

// look shows the bytes at the pipe's head to the matcher, each once.
func (c *capture) look(head []byte) {
	if c.matcher == nil || len(head) <= c.seen {
		return
	}
	if c.matcher.feed(head[c.seen:]) {
		c.matcher = nil
	}
	c.seen = len(head)
}

// move moves at most n bytes to an offset of the file. EAGAIN can only be the pipe's: a file is always ready.
func (c *capture) move(pipe int, offset int64, n int) (int, outcome) {
	if c.byCopy {
		return c.copy(pipe, offset, n)
	}
	at := offset
	moved, err := unix.Splice(pipe, nil, int(c.file.Fd()), &at, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	switch {
	case err == nil && moved == 0:
		return 0, over
	case err == nil:
		c.flow(pipe, int(moved))
		return int(moved), again
	case err == unix.EAGAIN:
		return 0, idle
	case err == unix.EINTR:
		return 0, again
	case err == unix.EINVAL:
		c.byCopy = true // some file systems and all devices cannot splice
		return 0, again
	default:
		c.fail(err)
		return 0, again
	}
}

// copy is move for what cannot splice. A byte leaves the pipe once it is in the file; only here a kill of the keeper
// between the two would have it written twice.
func (c *capture) copy(pipe int, offset int64, n int) (int, outcome) {
	data, out := c.peek(pipe, n)
	if len(data) == 0 {
		return 0, out
	}
	var written int
	var err error
	if c.device {
		written, err = c.file.Write(data)
	} else {
		written, err = c.file.WriteAt(data, offset)
	}
	for left := written; left > 0; {
		k, _ := unix.Read(pipe, c.buffer()[:left])
		left -= max(k, 0)
	}
	if err != nil {
		c.fail(err)
	}
	return written, again
}

// take reads what nobody wants from the pipe.
func (c *capture) take(pipe int) (n int, out outcome) {
	n, err := unix.Read(pipe, c.buffer())
	switch {
	case n > 0:
		c.look(c.buf[:n])
		c.seen = max(0, c.seen-n)
		return n, again
	case err == unix.EAGAIN:
		return 0, idle
	case err == unix.EINTR:
		return 0, again
	default:
		return 0, over
	}
}

func (c *capture) buffer() []byte {
	if c.buf == nil {
		c.buf = make([]byte, pipeBytes)
	}
	return c.buf
}

// peek returns at most n bytes of those that wait in the pipe, which stay in it; with none, out says why. The pipe that
// they are duplicated into lives for this look only, for looks are rare and a pipe kept for each process is not.
func (c *capture) peek(pipe, n int) (data []byte, out outcome) {
	var look [2]int
	if err := unix.Pipe2(look[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		c.fail(err)
		return nil, again
	}
	defer func() {
		_ = unix.Close(look[0]) // nothing to lose
		_ = unix.Close(look[1]) // as above
	}()
	buf := c.buffer()
	seen, err := unix.Tee(pipe, look[1], min(n, len(buf)), unix.SPLICE_F_NONBLOCK)
	switch {
	case err == unix.EAGAIN:
		return nil, idle
	case err == unix.EINTR:
		return nil, again
	case err != nil:
		c.fail(err)
		return nil, again
	case seen == 0:
		return nil, over
	}
	got := 0
	for got < int(seen) {
		k, err := unix.Read(look[0], buf[got:seen])
		if err != nil && !errors.Is(err, unix.EINTR) || k == 0 {
			break
		}
		got += max(k, 0)
	}
	return buf[:got], again
}

// toLineEnd returns how many bytes are still to go into a file that is to be rotated. With 0 it was rotated, or there is
// nothing to rotate.
func (c *capture) toLineEnd(pipe int, size int64) int {
	if size == 0 && c.due {
		c.rotated(nil)
		return 0
	}
	if !c.due && unread(pipe) == 0 {
		return maxMove // the file is rotated when there is something for the next
	}
	if c.mayCut(size) {
		c.rotateFile(size)
		return 0
	}
	data, out := c.peek(pipe, lineSlack)
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1
	}
	if out == again && len(data) == 0 {
		return 0
	}
	return max(len(data), 1) // with nothing there, the move says why
}

// flow counts what goes through a pipe, and gives it more room when that is much.
func (c *capture) flow(pipe, moved int) {
	if c.large {
		return
	}
	if c.now.Sub(c.flowSince) > floodTime {
		c.flowSince, c.flowed = c.now, 0
	}
	if c.flowed += moved; c.flowed < floodBytes {
		return
	}
	c.flowed = 0
	if c.large = c.logs.takeLarge(); !c.large {
		return
	}
	// It fails when pipes of this user have more than their share; the usual pipe does as well.
	_, _ = unix.FcntlInt(uintptr(pipe), unix.F_SETPIPE_SZ, largeBytes)
}

// shrink gives the room of an enlarged pipe back, once the pipe is closed.
func (c *capture) shrink() {
	if c.large {
		c.logs.giveLarge()
		c.large = false
	}
}

// unread returns how many bytes wait in a pipe.
func unread(pipe int) int {
	n, err := unix.IoctlGetInt(pipe, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}
