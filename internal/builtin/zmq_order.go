package builtin

import (
	"context"
	"slices"
	"sync"
)

// frameName names a frame of a stream.
type frameName struct {
	stream string
	seq    uint64
}

// frameOrder lets one frame's events pass at a time, and of those that wait the oldest first, so that frames which are
// opened at once leave about as they are stored. The zero frameOrder is ready; it is safe for concurrent use.
type frameOrder struct {
	mu      sync.Mutex
	held    bool
	holder  frameName
	waiting []frameWait
}

type frameWait struct {
	name  frameName
	admit chan struct{}
}

// enter waits until name's events may pass; they may until leave.
func (o *frameOrder) enter(ctx context.Context, name frameName) error {
	o.mu.Lock()
	if !o.held || o.holder == name {
		o.held, o.holder = true, name
		o.mu.Unlock()
		return nil
	}
	w := frameWait{name, make(chan struct{})}
	o.waiting = append(o.waiting, w)
	o.mu.Unlock()
	select {
	case <-w.admit:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx) // the service stops: nobody else will pass
	}
}

// leave lets the next frame pass.
func (o *frameOrder) leave(name frameName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.held || o.holder != name {
		return
	}
	if o.held = len(o.waiting) > 0; !o.held {
		return
	}
	next := 0
	for i, w := range o.waiting {
		if w.name.seq < o.waiting[next].name.seq {
			next = i
		}
	}
	o.holder = o.waiting[next].name
	close(o.waiting[next].admit)
	o.waiting = slices.Delete(o.waiting, next, next+1)
}
