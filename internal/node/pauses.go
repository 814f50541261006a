package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
)

// pauses are the queues that a person has paused or let go on, against the manifest. They are kept in pauses.json, so
// that they last over restarts.
type pauses struct {
	path string

	mu   sync.Mutex
	kept map[string]handPause // by queue
}

// handPause counts as long as the manifest says what it said then: the last word holds.
type handPause struct {
	Paused   bool `json:"paused"`
	Declared bool `json:"declared"`
}

func newPauses(path string) *pauses { return &pauses{path: path, kept: map[string]handPause{}} }

func (p *pauses) load() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := read(p.path, &p.kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// paused reports whether the queue rests now.
func (p *pauses) paused(q manifest.Queue) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.kept[q.Name]; ok && h.Declared == q.Pause {
		return h.Paused
	}
	return q.Pause
}

// set is a person's word on a queue.
func (p *pauses) set(q manifest.Queue, paused bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := maps.Clone(p.kept)
	delete(next, q.Name)
	if paused != q.Pause {
		next[q.Name] = handPause{paused, q.Pause}
	}
	if err := write(p.path, next); err != nil {
		return fmt.Errorf("keep that queue %s is paused or not: %w", q.Name, err)
	}
	p.kept = next
	return nil
}

// handledQueues are the queues of m by name.
func handledQueues(m *manifest.Manifest) []manifest.Queue {
	var kinds []string
	for _, s := range m.Services {
		kinds = append(kinds, s.Handles...)
	}
	return queuesOf(m, kinds)
}

// queueNamed finds a queue of the manifest that runs.
func (n *Node) queueNamed(name string) (manifest.Queue, error) {
	m := n.current()
	if m == nil {
		return manifest.Queue{}, errNoManifest
	}
	all := handledQueues(m)
	for _, q := range all {
		if q.Name == name {
			return q, nil
		}
	}
	fix := "no service handles tasks: name kinds under handles of one"
	if len(all) > 0 {
		fix = "name one of:"
		for _, q := range all {
			fix += " " + q.Name
		}
	}
	return manifest.Queue{}, &fault.Error{Code: "task/unknown-queue", Kind: fault.Misuse, What: fmt.Sprintf("there is no queue %q", name), Where: name, Fix: fix}
}

// pause has the queue rest, or go on. What runs is finished. It lasts over restarts of everything.
func (n *Node) pause(ctx context.Context, name string, paused bool) error {
	n.applying.Lock()
	defer n.applying.Unlock()
	q, err := n.queueNamed(name)
	if err != nil {
		return err
	}
	if err := n.pauses.set(q, paused); err != nil {
		return err
	}
	n.flow.mu.Lock()
	n.flow.of = nil // what status says next is asked anew
	n.flow.mu.Unlock()
	n.mu.Lock()
	n.layout.Queues = slices.Clone(n.layout.Queues) // others read the one before
	for i := range n.layout.Queues {
		if n.layout.Queues[i].Name == name {
			n.layout.Queues[i].Paused = paused
		}
	}
	layout := n.layout
	n.mu.Unlock()
	if err := write(n.state.layout(), layout); err != nil { // what a broker that starts anew holds itself to
		return err
	}
	return broker.SetPaused(ctx, n.js, broker.QueueSpec{Name: q.Name, Kinds: q.Kinds, Paused: paused})
}
