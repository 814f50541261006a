package keeper

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/logfile"
)

// logs is what the captures of a keeper share: the names of log files, the worker that compresses rotated ones, and how
// many pipes may be large. The worker runs while there is work, at the lowest priority, one file at a time.
type logs struct {
	names sync.Mutex // held while log files get other names

	log    *slog.Logger
	launch func(func())  // starts a goroutine that the keeper waits for
	stop   chan struct{} // closed when the keeper ends

	mu      sync.Mutex
	shared  map[string]*sharedLog // by path
	large   int                   // pipes
	queue   []string              // logs with files to compress, each once: as many as there are logs at most
	working bool
	ended   bool
}

func newLogs(log *slog.Logger, launch func(func())) *logs {
	return &logs{log: log, launch: launch, stop: make(chan struct{}), shared: map[string]*sharedLog{}}
}

// compress has the rotated files of a log compressed, some time.
func (l *logs) compress(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || slices.Contains(l.queue, path) {
		return
	}
	l.queue = append(l.queue, path)
	if !l.working {
		l.working = true
		l.launch(l.work)
	}
}

// work compresses until nothing is left. The thread gets the priority and ends with the goroutine, which never unlocks it.
func (l *logs) work() {
	runtime.LockOSThread()
	const lowest = 19
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowest); err != nil {
		l.log.Warn("logs are compressed at the usual priority", "error", err)
	}
	for {
		path, ok := l.next()
		if !ok {
			return
		}
		if err := logfile.Compress(l.stop, path, &l.names); err != nil {
			l.log.Warn("log not compressed", "path", path, "error", err) // the next rotation tries again
		}
	}
}

func (l *logs) next() (path string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.queue) == 0 {
		l.working = false
		return "", false
	}
	path = l.queue[0]
	l.queue = l.queue[1:]
	return path, true
}

// end stops the worker at the next block; what it was at is done anew by the next keeper.
func (l *logs) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		close(l.stop)
	}
}

// takeLarge says whether one more pipe may be large.
func (l *logs) takeLarge() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.large >= maxLarge {
		return false
	}
	l.large++
	return true
}

func (l *logs) giveLarge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.large--
}

// rotateTime is how long a rotation may take: the end of a line is awaited for a second, the rest is the disk's.
const rotateTime = 10 * time.Second

// setLog changes how a process is logged while it runs.
func (k *Keeper) setLog(name string, want Log) error {
	r, err := k.find(name)
	if err != nil {
		return err
	}
	if err := checkLog(name, want); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := r.capture.set(want); err != nil {
		return err
	}
	r.spec.Log = want
	k.depositRecord(r)
	return nil
}

// rotateLog begins a new file of a process's log.
func (k *Keeper) rotateLog(name string) error {
	r, err := k.find(name)
	if err != nil {
		return err
	}
	return r.capture.rotate(rotateTime)
}

func checkLog(name string, l Log) error {
	switch {
	case l.Path != "" && !filepath.IsAbs(l.Path):
		return misuse("bad-request", fmt.Sprintf("log of %s is not an absolute path", name), "")
	case l.MaxBytes < 0 || l.Keep < 0 || l.Age < 0:
		return misuse("bad-request", fmt.Sprintf("log limits of %s are negative", name), "")
	case l.Full != "" && l.Full != fullDrop && l.Full != fullBlock:
		return misuse("bad-request", fmt.Sprintf("log of %s is neither to %s nor to %s when it is full", name, fullDrop, fullBlock), "")
	}
	return nil
}
