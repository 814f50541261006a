package supervisor

import (
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// entry is what an owner shows of its instance.
type entry struct {
	status.Instance
	service   string
	run       string // of its process; empty when none lives
	hash      string // of what runs, or of what will
	hot       string
	parts     *parts // likewise, key by key
	stopped   bool   // a person stopped it
	alive     bool
	completed bool   // Exited with status 0
	essential bool   // and has ended for good, by itself
	code      int    // as a shell would give it, when it is essential
	rolling   bool   // runs on in its old shape until it is its turn to be restarted; the board's, not the owner's
	botched   uint64 // how many replacements of it were given up
	falls     uint64 // how often it crashed or could not be started
}

// board shows the entries of all instances and wakes whoever waits for a change.
type board struct {
	mu      sync.Mutex // guards everything that follows
	entries map[string]entry
	rolling map[string]bool
	order   []string
	change  chan struct{} // closed at the next change
	queue   []Event       // not emitted yet
	queued  chan struct{} // one slot: there is something in the queue
}

func newBoard() *board {
	return &board{
		entries: make(map[string]entry),
		rolling: make(map[string]bool),
		change:  make(chan struct{}),
		queued:  make(chan struct{}, 1),
	}
}

// changed returns a channel that is closed at the next change. Take it before looking.
func (b *board) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.change
}

// set shows e. Nothing happens when it is shown already.
func (b *board) set(e entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.entries[e.Name]
	if known && old == e {
		return
	}
	if !known && !slices.Contains(b.order, e.Name) {
		b.order = append(b.order, e.Name)
	}
	b.entries[e.Name] = e
	if !known || old.State != e.State || old.PID != e.PID || old.Reason != e.Reason || old.Change != e.Change {
		change := Event{
			Time: time.Now(), Instance: e.Name, State: e.State, PID: e.PID, Reason: e.Reason, Restarts: e.Restarts,
			Change: e.Change, ChangeReason: e.ChangeReason,
		}
		if e.essential {
			change.Ended = &Ended{e.code}
		}
		b.queue = append(b.queue, change)
		select {
		case b.queued <- struct{}{}:
		default:
		}
	}
	b.wakeLocked()
}

// roll marks instances that will have to be restarted, all at once: an owner that looks for its turn must see that the
// one before it waits for its own.
func (b *board) roll(names ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range names {
		b.rolling[name] = true
	}
	b.wakeLocked()
}

// rolled takes the mark from an instance.
func (b *board) rolled(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rolling[name] {
		delete(b.rolling, name)
		b.wakeLocked()
	}
}

// remove takes an instance off the board.
func (b *board) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.entries, name)
	delete(b.rolling, name)
	b.order = slices.DeleteFunc(b.order, func(n string) bool { return n == name })
	b.wakeLocked()
}

// arrange puts names first, in this order.
func (b *board) arrange(names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	order := slices.Clone(names)
	for _, name := range b.order {
		if !slices.Contains(names, name) {
			order = append(order, name)
		}
	}
	b.order = order
	b.wakeLocked()
}

func (b *board) wakeLocked() {
	close(b.change)
	b.change = make(chan struct{})
}

func (b *board) get(name string) (entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[name]
	return e, ok
}

// service returns the entries of a service in order.
func (b *board) service(name string) []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(b.allLocked(), func(e entry) bool { return e.service != name })
}

func (b *board) instances() []status.Instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]status.Instance, 0, len(b.order))
	for _, e := range b.allLocked() {
		all = append(all, e.Instance)
	}
	return all
}

// all returns every entry in order.
func (b *board) all() []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.allLocked()
}

func (b *board) allLocked() []entry {
	all := make([]entry, 0, len(b.order))
	for _, n := range b.order {
		if e, ok := b.entries[n]; ok {
			e.rolling = b.rolling[n]
			if e.rolling && e.Change == "" {
				e.Change, e.ChangeReason = status.ChangeWaiting, "waits for its turn to restart"
			}
			all = append(all, e)
		}
	}
	return all
}

// emit calls f for every change, until over is closed and all are told. Changes queue up while f is busy: dropping one
// would leave whoever draws them with a wrong picture, and they are as rare as starts and stops.
func (b *board) emit(over <-chan struct{}, f func(Event)) {
	for open := true; open; {
		select {
		case <-over:
			open = false
		case <-b.queued:
		}
		b.mu.Lock()
		queue := b.queue
		b.queue = nil
		b.mu.Unlock()
		if f == nil {
			continue
		}
		for _, e := range queue {
			f(e)
		}
	}
}
