package node

import (
	"sync"

	"github.com/hozo-dev/hozo/internal/supervisor"
)

// listenerBacklog is how many events a listener may be behind before it is cut off: a restart of everything in a
// project of a hundred instances is some six hundred events.
const listenerBacklog = 1024

// feed passes events to whoever listens. A listener that does not keep up is cut off and never holds up the others.
type feed struct {
	mu        sync.Mutex
	listeners map[chan supervisor.Event]struct{}
}

func newFeed() *feed { return &feed{listeners: map[chan supervisor.Event]struct{}{}} }

func (f *feed) publish(e supervisor.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.listeners {
		select {
		case l <- e:
		default:
			delete(f.listeners, l)
			close(l)
		}
	}
}

// listen returns a channel of events, closed when the listener is cut off, and a func that ends it.
func (f *feed) listen() (<-chan supervisor.Event, func()) {
	l := make(chan supervisor.Event, listenerBacklog)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners[l] = struct{}{}
	return l, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, ok := f.listeners[l]; ok {
			delete(f.listeners, l)
			close(l)
		}
	}
}
