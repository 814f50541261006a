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
