package task

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// noteKeep is how long a cancellation is remembered: longer than a task waits here before it is begun.
	noteKeep = 10 * time.Second

	// mostNotes bounds the memory; beyond it the oldest are forgotten.
	mostNotes = 4096
)

// notes are the cancellations heard of lately, for tasks that are here but not begun. The zero notes is ready; it is safe
// for concurrent use.
type notes struct {
	any atomic.Bool // that few kinds are ever cancelled costs those that are not nothing

	mu    sync.Mutex
	heard map[string]time.Time // by token
	order []string             // by time
}

func (n *notes) add(token string) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.heard == nil {
		n.heard = map[string]time.Time{}
	}
	for len(n.order) > 0 && (len(n.order) >= mostNotes || now.Sub(n.heard[n.order[0]]) > noteKeep) {
		delete(n.heard, n.order[0])
		n.order = n.order[1:]
	}
	if _, known := n.heard[token]; !known {
		n.order = append(n.order, token)
		n.heard[token] = now
	}
	n.any.Store(true)
}

// has reports whether the task was cancelled lately.
func (n *notes) has(token string) bool {
	if !n.any.Load() {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, known := n.heard[token]
	return known
}
