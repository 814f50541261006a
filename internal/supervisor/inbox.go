package supervisor

import (
	"sync"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// inbox holds the keeper's last word on each process of an instance until its owner has time for it: an owner that waits
// for the keeper must not hold up the events of the others. One record a process is enough, because each says all that
// is known.
type inbox struct {
	wake chan struct{} // one slot: there are records

	mu      sync.Mutex // guards records
	records []keeper.Process
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (i *inbox) put(p keeper.Process) {
	i.mu.Lock()
	defer i.mu.Unlock()
	known := false
	for n, old := range i.records {
		if old.Run == p.Run {
			if old.Exit != nil {
				return // nothing follows an exit
			}
			i.records[n], known = p, true
		}
	}
	if !known {
		i.records = append(i.records, p)
	}
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// take returns the records in the order in which their processes were first heard of.
func (i *inbox) take() []keeper.Process {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := i.records
	i.records = nil
	return all
}
