package keeper

import (
	"log/slog"
	"os"
)

// Capture moves what comes out of pipe into a log until the last writer is gone, and returns how many bytes it dropped.
func Capture(pipe *os.File, spec Log) (dropped uint64, err error) {
	group := newLogs(slog.New(slog.DiscardHandler), func(f func()) { f() })
	c, err := newCapture(spec, slog.New(slog.DiscardHandler), group)
	if err != nil {
		return 0, err
	}
	c.pipe = pipe
	c.run()
	return c.dropped.Load(), nil
}

// Capturing is one of the captures that share a log. Each Turn is made by the test.
type Capturing struct {
	capture *capture
	in      *os.File
}

// ShareLog makes captures of one log.
func ShareLog(path string, captures int) (all []Capturing, err error) {
	group := newLogs(slog.New(slog.DiscardHandler), func(f func()) { f() })
	for range captures {
		c, err := newCapture(Log{Path: path}, slog.New(slog.DiscardHandler), group)
		if err != nil {
			return nil, err
		}
		write, err := openPipe(c, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, Capturing{c, write})
	}
	return all, nil
}

// Print writes what the process of the capture would.
func (c Capturing) Print(text string) error {
	_, err := c.in.WriteString(text)
	return err
}

// Exit is the end of the process; Close that of the capture.
func (c Capturing) Exit() error { return c.in.Close() }

func (c Capturing) Close() { c.capture.close() }

// Turn says whether the capture is to wait for another one.
func (c Capturing) Turn() (waits bool) {
	return c.capture.turn(int(c.capture.pipe.Fd())) == blocked
}
