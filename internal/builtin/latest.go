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
type latestCache struct {
	mu     sync.Mutex
	byName map[string]*list.Element
	order  *list.List // of latestEntry, the one used last in front
}

type latestEntry struct {
	subject string
	latest  latest
}

func newLatestCache() *latestCache {
	return &latestCache{byName: make(map[string]*list.Element), order: list.New()}
}

func (c *latestCache) get(subject string) (latest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byName[subject]
	if e == nil {
		return latest{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(latestEntry).latest, true
}

func (c *latestCache) put(subject string, l latest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := latestEntry{subject, l}
	if e := c.byName[subject]; e != nil {
		e.Value = entry
		c.order.MoveToFront(e)
		return
	}
	c.byName[subject] = c.order.PushFront(entry)
	if c.order.Len() > maxProducers {
		c.removeLocked(c.order.Back())
	}
}

func (c *latestCache) drop(subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byName[subject]; e != nil {
		c.removeLocked(e)
	}
}

func (c *latestCache) removeLocked(e *list.Element) {
	c.order.Remove(e)
	delete(c.byName, e.Value.(latestEntry).subject)
}
