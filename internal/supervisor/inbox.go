package supervisor

import (
	"sync"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// inbox holds the keeper's last word on an instance until its owner has time for it: an owner that waits for the
// keeper must not hold up the events of the others. One record is enough, because each says all that is known.
type inbox struct {
	wake chan struct{} // one slot: there is a record

	mu     sync.Mutex // guards record
	record *keeper.Process
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (i *inbox) put(p keeper.Process) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.record != nil && i.record.Run == p.Run && i.record.Exit != nil {
		return // nothing follows an exit
	}
	i.record = &p
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

func (i *inbox) take() (keeper.Process, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.record == nil {
		return keeper.Process{}, false
	}
	p := *i.record
	i.record = nil
	return p, true
}
