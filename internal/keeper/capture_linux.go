package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hozo-dev/hozo/internal/logfile"
)

// abandonTime is how long a capture that is given up may still be in a write before it is left to itself.
const abandonTime = time.Second

// capture moves the output of one process into its log. The bytes go from the pipe to the file inside the kernel, so at
// every instant each byte is in one of the two: whoever opens the log again, at the size that it then has, and goes on
// with the same pipe, loses none and writes none twice. A capture has no other state that matters.
type capture struct {
	pipe    *os.File
	log     *slog.Logger
	logs    *logs
	shared  *sharedLog    // nil when output is discarded
	dropped atomic.Uint64 // bytes that could not be written
	done    chan struct{} // closed when run has returned
	matcher *lineMatcher  // set before run, whose it is then; nil looks for nothing

	asked     atomic.Bool   // run has something to attend to
	abandoned atomic.Bool   // nobody waits for the rest
	woken     chan struct{} // 1: a wake that comes while run is awake is not lost

	mu    sync.Mutex
	want  Log          // as set last
	asks  []chan error // for a rotation; each gets one answer
	ended bool         // run takes no asks any more

	// Owned by run.
	spec     Log
	file     *os.File // nil after a failed write, until it is opened again
	of       uint64   // generation of the shared log that file is
	device   bool     // not a regular file: it has no size and is not rotated
	byCopy   bool     // its file system cannot splice
	limit    int64    // size at which the file is rotated; 0 means never
	due      bool     // to be rotated whatever its size
	cutAt    time.Time
	answers  []chan error // of asks that wait for the rotation
	retry    time.Time
	looked   time.Time
	gap      uint64 // bytes dropped since the last that were written
	gapCause error
	buf      []byte
	seen     int // bytes at the pipe's head that matcher has had

	now       time.Time // of the present turn
	until     time.Time // end of a pause
	held      time.Time // since when a part of a line waits in the pipe for its rest; only in a log that is shared
	yielded   time.Time // since when another one's line is waited for
	flowSince time.Time
	flowed    int  // bytes since flowSince
	large     bool // the pipe has more room than usual
}

// outcome is what became of one try to move output.
type outcome int

const (
	again   outcome = iota // there may be more
	idle                   // nothing waits in the pipe
	blocked                // nothing can be written until a time, or a nudge, and the process is to wait for it
	over                   // the last writer of the pipe is gone
)

// newCapture opens the log; run moves output into it. pipe is owned by the capture from then on.
func newCapture(spec Log, log *slog.Logger, logs *logs) (*capture, error) {
	c := &capture{log: log, logs: logs, done: make(chan struct{}), woken: make(chan struct{}, 1), want: spec, spec: spec}
	if spec.Path == "" {
		return c, nil
	}
	if err := c.begin(); err != nil && !transient(err) {
		c.logs.part(spec.Path, c.shared)
		return nil, err
	}
	if spec.Compress {
		logs.compress(spec.Path) // what a crash has left to do
	}
	return c, nil
}

// resumeCapture goes on with the log of a process that an earlier keeper started. A log that cannot be opened now is
// tried again, as after a failed write. The caller sets pipe.
func resumeCapture(spec Log, log *slog.Logger, logs *logs) *capture {
	c := &capture{log: log, logs: logs, done: make(chan struct{}), woken: make(chan struct{}, 1), want: spec, spec: spec}
	if spec.Path != "" {
		_ = c.begin() // tried again with the first output
	}
	return c
}

// begin opens the log for the first time.
func (c *capture) begin() error {
	c.shared = c.logs.join(c.spec.Path)
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	err := c.open()
	if err != nil {
		c.fail(err)
	}
	return err
}

// run moves output until the last writer of the pipe is gone, or abandon.
func (c *capture) run() {
	defer close(c.done)
	defer c.close()
	raw, err := c.pipe.SyscallConn()
	if err != nil {
		c.log.Error("output is not captured", "error", err)
		return
	}
	c.attend()
	for !c.abandoned.Load() {
		var out outcome
		err := raw.Read(func(fd uintptr) bool {
			out = c.turn(int(fd))
			return out != idle // the poller wakes it when there is more
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.attend()
			continue
		case err != nil || out == over:
			return
		case out == blocked:
			c.pause()
		}
		if c.asked.Swap(false) {
			c.attend()
		}
	}
	// What is left goes nowhere.
	_ = raw.Control(func(fd uintptr) { c.dropped.Add(uint64(unread(int(fd)))) })
}

// attend does what was asked since the last time and what time itself asks, and says when to attend again at the latest.
func (c *capture) attend() {
	c.mu.Lock()
	c.asked.Store(false)
	want, asks := c.want, c.asks
	c.asks = nil
	c.mu.Unlock()

	if c.spec != want {
		c.adjust(want)
	}
	c.answers = append(c.answers, asks...)
	if len(c.answers) > 0 && !c.due {
		c.rotateSoon()
	}
	var next time.Time
	if first := c.firstOutput(); c.spec.Age > 0 && !first.IsZero() && !c.due {
		if next = first.Add(c.spec.Age); !time.Now().Before(next) {
			c.rotateSoon()
		}
	}
	if c.due {
		next = c.cutAt
		c.rotateIdle()
	}
	if rest := c.held.Add(lineWait); !c.held.IsZero() && time.Now().Before(rest) && (next.IsZero() || rest.Before(next)) {
		next = rest
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked.Load() { // otherwise a wake has set the deadline, or the next round does
		_ = c.pipe.SetReadDeadline(next) // a pipe has deadlines; if it is closed, run ends anyway
	}
}

// adjust takes over settings of a running process.
func (c *capture) adjust(want Log) {
	c.spec = want
	c.limit = want.MaxBytes
	c.retry = time.Time{}
	if c.spec.Path == "" || c.device {
		return
	}
	c.logs.names.Lock()
	err := logfile.Prune(want.Path, want.Keep)
	c.logs.names.Unlock()
	if err != nil {
		c.log.Warn("old logs not removed", "path", want.Path, "error", err)
	}
	if want.Compress {
		c.logs.compress(want.Path)
	}
}

// set changes how a running process is logged; the path stays.
func (c *capture) set(want Log) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if want.Path != c.want.Path {
		return misuse("bad-request", fmt.Sprintf("log %s cannot become %s while the process runs", c.want.Path, want.Path), "restart it")
	}
	c.want = want
	c.wakeLocked()
	return nil
}

// rotate begins a new file, at a line's end if one comes soon, and returns when that is done. An empty log stays.
func (c *capture) rotate(patience time.Duration) error {
	c.mu.Lock()
	if c.ended || c.want.Path == "" {
		defer c.mu.Unlock()
		return c.rotateEnded()
	}
	answer := make(chan error, 1)
	c.asks = append(c.asks, answer)
	c.wakeLocked()
	c.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-answer:
		return err
	case <-timer.C:
		return failure("log", "the log is not rotated: its disk does not answer", "", nil)
	}
}

func (c *capture) wakeLocked() {
	c.asked.Store(true)
	_ = c.pipe.SetReadDeadline(time.Unix(1, 0)) // ends a wait; if the pipe is closed there is none
	c.nudge()
}

// nudge ends a pause.
func (c *capture) nudge() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// pause waits until it is worth trying again.
func (c *capture) pause() {
	timer := time.NewTimer(time.Until(c.until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.woken:
	}
}

// await waits until all output is in the log, at most for d; then it gives up the rest.
func (c *capture) await(d time.Duration) {
	if c.wait(d) {
		return
	}
	c.abandon()
	if !c.wait(abandonTime) {
		c.log.Error("log is not closed: its disk does not answer")
		_ = c.pipe.Close() // ends run once its write returns
	}
}

func (c *capture) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
		return false
	}
}

// abandon ends run, whoever still holds the other end of the pipe.
func (c *capture) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned.Store(true)
	c.wakeLocked()
}

func (c *capture) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.shared != nil {
		c.shared.mu.Lock()
		if c.file != nil && c.gap > 0 {
			_ = c.writeGap() // the count tells it as well
		}
		c.closeFile()
		c.shared.leave(c)
		c.shared.mu.Unlock()
		c.logs.part(c.want.Path, c.shared)
		c.shared = nil
	}
	for _, answer := range append(c.answers, c.asks...) {
		answer <- c.rotateEnded()
	}
	c.answers, c.asks = nil, nil
	if c.pipe != nil {
		_ = c.pipe.Close() // read side: what was in it is counted
	}
	c.shrink()
}
