package keeper

import (
	"fmt"
	"time"
)

// The values of Log.Full.
const (
	fullDrop  = "drop"
	fullBlock = "block"
)

// logRetry is how long after a failed write the log is tried again.
const logRetry = time.Second

// fail gives the file up until the log is tried again.
func (c *capture) fail(err error) {
	if c.gapCause == nil || c.gapCause.Error() != err.Error() {
		c.log.Warn("log cannot be written", "path", c.spec.Path, "full", c.spec.Full, "error", err)
	}
	c.gapCause = err
	c.closeFile()
	c.shared.closeIndex()
	c.retry = time.Now().Add(logRetry)
}

// unwritten deals with output while the log cannot be written: it is counted and dropped, or the process waits.
func (c *capture) unwritten(pipe int) outcome {
	if c.spec.Full == fullBlock {
		c.until = c.retry
		return blocked
	}
	n, out := c.take(pipe)
	c.dropped.Add(uint64(n))
	c.gap += uint64(n)
	return out
}

// reopen tries to open a log that failed, once every logRetry.
func (c *capture) reopen() bool {
	if time.Now().Before(c.retry) {
		return false
	}
	if err := c.open(); err != nil {
		c.fail(err)
		return false
	}
	if c.gap > 0 {
		if err := c.writeGap(); err != nil {
			c.fail(err)
			return false
		}
		c.log.Info("log is written again", "path", c.spec.Path, "dropped_bytes", c.dropped.Load())
	}
	c.gapCause = nil
	return true
}

// writeGap writes into the log, as a line of its own, what is missing there.
func (c *capture) writeGap() error {
	text := fmt.Sprintf("hozo: %d bytes of output are missing here: %v\n", c.gap, c.gapCause)
	if c.device {
		_, err := c.file.WriteString(text)
		return err
	}
	info, err := c.file.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size > 0 && !c.endsLine(size) {
		text = "\n" + text
	}
	c.mark(time.Now(), size)
	if _, err := c.file.WriteAt([]byte(text), size); err != nil {
		_ = c.file.Truncate(size) // half a line would be taken for the process's own
		return err
	}
	c.gap = 0
	return nil
}
