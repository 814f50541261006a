//go:build linux

package supervisord

import "sync"

// growth tells followers of a log file that something was written to it. The zero growth is ready; it is safe for
// concurrent use.
type growth struct {
	mu      sync.Mutex
	waiting map[string]chan struct{} // by path; closed and dropped at the next write
}

// wrote wakes whoever follows path.
func (g *growth) wrote(path string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.waiting[path]; c != nil {
		close(c)
		delete(g.waiting, path)
	}
}

// next returns a channel that is closed at the next write to path.
func (g *growth) next(path string) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting == nil {
		g.waiting = map[string]chan struct{}{}
	}
	c := g.waiting[path]
	if c == nil {
		c = make(chan struct{})
		g.waiting[path] = c
	}
	return c
}
