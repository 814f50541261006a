package builtin

import (
	"container/list"
	"sync"
)

// maxProducers is how many producers' newest batches are remembered; for the others the stream is asked. An entry takes
// some 200 bytes.
const maxProducers = 4096

// latestCache remembers the newest frame of the producers that sent last. It may be wrong, because other processes store
// too: the broker's check of the expected sequence has the last word. Safe for concurrent use.
type latestCache[T any] struct {
	mu     sync.Mutex
	byName map[string]*list.Element
	order  *list.List // of latestEntry[T], the one used last in front
}

type latestEntry[T any] struct {
	name   string
	latest T
}

func newLatestCache[T any]() *latestCache[T] {
	return &latestCache[T]{byName: make(map[string]*list.Element), order: list.New()}
}

func (c *latestCache[T]) get(name string) (latest T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byName[name]
	if e == nil {
		return latest, false
	}
	c.order.MoveToFront(e)
	return e.Value.(latestEntry[T]).latest, true
}

func (c *latestCache[T]) put(name string, l T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := latestEntry[T]{name, l}
	if e := c.byName[name]; e != nil {
		e.Value = entry
		c.order.MoveToFront(e)
		return
	}
	c.byName[name] = c.order.PushFront(entry)
	if c.order.Len() > maxProducers {
		c.removeLocked(c.order.Back())
	}
}

func (c *latestCache[T]) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byName[name]; e != nil {
		c.removeLocked(e)
	}
}

func (c *latestCache[T]) removeLocked(e *list.Element) {
	c.order.Remove(e)
	delete(c.byName, e.Value.(latestEntry[T]).name)
}
