package bus

import (
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/wire"
)

// edgeCounts are what went over each edge of this process but those on which it publishes, which AddOut counts. A service
// has as many as lines in the manifest, so nothing bounds them here.
type edgeCounts struct {
	mu sync.Mutex
	n  map[edge]uint64
}

type edge struct{ word, name string }

// AddEdge counts events, requests or tasks on an edge that the manifest declares: the word, and the stream, subject or
// kind behind it. It costs a lock, so count a batch at once where there is one.
func (c *Counters) AddEdge(word, name string, n uint64) {
	c.edges.mu.Lock()
	defer c.edges.mu.Unlock()
	if c.edges.n == nil {
		c.edges.n = map[edge]uint64{}
	}
	c.edges.n[edge{word, name}] += n
}

func (e *edgeCounts) all() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.n) == 0 {
		return nil
	}
	all := make(map[string]uint64, len(e.n))
	for of, n := range e.n {
		all[wire.EdgeKey(of.word, of.name)] = n
	}
	return all
}

// addConsumed counts the events of a frame that came on the stream named, or on the way of retries.
func (c *Counters) addConsumed(stream string, f *Frame, events uint64) {
	if stream == wire.RetryStream {
		id, _ := retried(f)
		stream = id.Stream
	}
	c.AddEdge("consumes", stream, events)
}

// countTasks counts the tasks that a handler has enqueued and that are stored.
func (c *Counters) countTasks(msgs []*nats.Msg) {
	for _, m := range msgs {
		if tokens := strings.Split(m.Subject, "."); len(tokens) > 4 && strings.HasPrefix(m.Subject, wire.TaskStream+".") {
			c.AddEdge("enqueues", strings.ReplaceAll(tokens[4], "_", "."), 1) // names in the manifest hold no underscores
		}
	}
}
