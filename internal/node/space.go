package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/status"
)

// lowSince remembers since when file systems are low on space, by device.
type lowSince struct {
	mu    sync.Mutex
	since map[uint64]time.Time
}

// spaceProblems names the file systems that are low on space: that of the state folder, where the broker then takes no
// new messages, and those that sinks write to.
func (n *Node) spaceProblems(m *manifest.Manifest) []status.Problem {
	n.low.mu.Lock()
	defer n.low.mu.Unlock()
	before := n.low.since
	n.low.since = map[uint64]time.Time{}
	looked := map[uint64]bool{}
	var problems []status.Problem
	look := func(path, service, consequence string) {
		device, space, err := spaceAt(path)
		if err != nil || looked[device] {
			return
		}
		looked[device] = true
		if !space.Low() {
			return
		}
		since, known := before[device]
		if !known {
			since = time.Now()
		}
		n.low.since[device] = since
		problems = append(problems, status.Problem{
			Code: "disk/low", Service: service, Since: since,
			Title: fmt.Sprintf("%s MB of %s MB are free on the file system of %s: %s", megabytes(space.FreeBytes), megabytes(space.TotalBytes), path, consequence),
			Fix: fmt.Sprintf("free space there, until more than %s MB are free; everything goes on by itself, and nothing that was accepted is lost",
				megabytes(space.Reserve()*5/4)),
		})
	}
	look(n.cfg.State, "", "no new events are accepted")
	for _, s := range m.Services {
		if s.To == nil {
			continue
		}
		for _, path := range []string{s.To.SQLite, s.To.File} {
			if path == "" {
				continue
			}
			if !filepath.IsAbs(path) {
				path = filepath.Join(s.Dir, path)
			}
			look(path, s.Name, s.Name+" may not be able to write; its events wait in their streams")
		}
	}
	return problems
}

// spaceAt measures the file system that path is on, or will be on once it is made, and tells which one that is.
func spaceAt(path string) (device uint64, space broker.Space, err error) {
	var st unix.Stat_t
	for err = unix.Stat(path, &st); errors.Is(err, fs.ErrNotExist) && path != "/"; err = unix.Stat(path, &st) {
		path = filepath.Dir(path)
	}
	if err != nil {
		return 0, space, err
	}
	space, err = broker.SpaceOf(path)
	return uint64(st.Dev), space, err //nolint:unconvert // 32 bits on macOS
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }
