package keeper

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stopProcesses ends everything: TERM to the node and then to the rest, with the grace each, then KILL.
func (k *Keeper) stopProcesses() {
	k.mu.Lock()
	k.stopping = true
	close(k.halt)
	var node []*record
	if r := k.records[NodeName]; r != nil && len(k.cfg.Node) > 0 && r.exit == nil {
		_ = r.signal(unix.SIGTERM, false) // gone already is as good
		node = append(node, r)
	}
	k.mu.Unlock()
	awaitAll(node, k.cfg.Grace)

	rest := k.running()
	k.mu.Lock()
	for _, r := range rest {
		_ = r.signal(unix.SIGTERM, true)
		_ = r.signal(unix.SIGCONT, true) // a stopped process takes TERM only then
	}
	k.mu.Unlock()
	awaitAll(rest, k.cfg.Grace)

	rest = k.running()
	var kills sync.WaitGroup
	for _, r := range rest {
		kills.Go(func() { k.endTree(r) })
	}
	kills.Wait()
	awaitAll(rest, killTime)
	k.endStrays()
}

// running returns the records that have not ended.
func (k *Keeper) running() []*record {
	k.mu.Lock()
	defer k.mu.Unlock()
	var rest []*record
	for _, r := range k.records {
		if r.exit == nil {
			rest = append(rest, r)
		}
	}
	return rest
}

// awaitAll waits until all records have ended, at most for d.
func awaitAll(records []*record, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for _, r := range records {
		select {
		case <-r.done:
		case <-timer.C:
			return
		}
	}
}

// endStrays kills what is left below the keeper: daemons that no tree could claim. Every record has ended, so every
// child that is left is one.
func (k *Keeper) endStrays() {
	all, err := processes()
	if err != nil {
		k.log.Error("strays not looked for", "error", err)
		return
	}
	for _, p := range all {
		if p.parent != os.Getpid() || p.dead {
			continue
		}
		left, err := newTree("", p.identity).end(time.Now().Add(killTime))
		if err != nil || len(left) > 0 {
			k.log.Error("processes outlive the keeper", "pids", left, "error", err)
		}
	}
}

// abandonOutputs gives up the pipes of processes that could not be ended; nothing else would end their captures.
func (k *Keeper) abandonOutputs() {
	for _, r := range k.running() {
		r.capture.abandon()
	}
}
