package keeper

import (
	"path/filepath"
	"time"
)

const (
	// The node is started again after nodeDelay, doubled up to maxNodeDelay while it does not even get ready: soon
	// enough that a crash is hardly seen, and cheap when it cannot start at all.
	nodeDelay    = 100 * time.Millisecond
	maxNodeDelay = 5 * time.Second

	// The node says little; 4 files of 10 MiB are weeks.
	nodeLogBytes = 10 << 20
	nodeLogKeep  = 3
)

// keepNode starts the node and starts it again whenever it ends, until the keeper stops.
func (k *Keeper) keepNode(ended <-chan struct{}) {
	s := Spawn{
		Name: NodeName,
		Argv: k.cfg.Node,
		Env:  k.cfg.NodeEnv,
		Log: Log{
			Path:     filepath.Join(k.cfg.State, "logs", "node.log"),
			MaxBytes: nodeLogBytes,
			Keep:     nodeLogKeep,
		},
		Notify: true,
	}
	delay := nodeDelay
	k.mu.Lock()
	r := k.records[NodeName] // of the keeper before this one
	k.mu.Unlock()
	for {
		var err error
		if r == nil {
			r, err = k.spawn(s)
		}
		if err == nil {
			select {
			case <-r.done:
			case <-ended: // it could not be killed
				return
			}
			k.mu.Lock()
			if r.ready {
				delay = nodeDelay
			}
			k.mu.Unlock()
		}
		select {
		case <-k.halt:
			return
		default:
		}
		k.log.Warn("node is started again", "after", delay, "error", err)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-k.halt:
			timer.Stop()
			return
		}
		delay = min(2*delay, maxNodeDelay)
		r = nil
		if err == nil {
			if err := k.forget(NodeName); err != nil {
				k.log.Error("last node not forgotten", "error", err)
			}
		}
	}
}
