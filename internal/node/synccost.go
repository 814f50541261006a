package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// plausibleSync is below what any disk needs that keeps its word: a flash drive with its own capacitors takes 20 µs,
	// the system call and the file system some more.
	plausibleSync = 10 * time.Microsecond
	// plausibleSyncs is how many syncs a verdict on a disk needs.
	plausibleSyncs = 100
)

// cost is what the syncs of one stream cost; nil when none is known.
type cost struct{ *wire.SyncCost }

func (c cost) status() *status.Sync {
	if c.SyncCost == nil {
		return nil
	}
	millis := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return &status.Sync{Syncs: c.Syncs, Commits: c.Commits, PerSecond: c.PerSecond, P50Millis: millis(c.P50), P99Millis: millis(c.P99)}
}

// syncCosts asks the broker what making the streams of m durable costs, by their names in the manifest. It asks nothing
// when none has durability power.
func (n *Node) syncCosts(ctx context.Context, m *manifest.Manifest) map[string]cost {
	if !slices.ContainsFunc(m.Streams, manifest.Stream.GroupCommit) {
		return nil
	}
	msg, err := n.nats.RequestWithContext(ctx, wire.SyncSubject, nil)
	if err != nil {
		return nil // the broker is on its way up or down; the next snapshot has it
	}
	var costs []wire.SyncCost
	if err := json.Unmarshal(msg.Data, &costs); err != nil {
		return nil // an older broker, until it is replaced
	}
	all := map[string]cost{}
	for _, s := range m.Streams {
		if i := slices.IndexFunc(costs, func(c wire.SyncCost) bool { return c.Stream == wire.StreamName(s.Name) }); i >= 0 {
			all[s.Name] = cost{&costs[i]}
		}
	}
	return all
}

// syncProblems says which streams cannot keep what durability power promises.
func syncProblems(m *manifest.Manifest, costs map[string]cost) []status.Problem {
	var problems []status.Problem
	for _, s := range m.Streams {
		c := costs[s.Name]
		switch {
		case c.SyncCost == nil || !s.GroupCommit():
		case c.Memory:
			problems = append(problems, status.Problem{
				Code: "stream/memory-file-system", Since: time.Now(),
				Title: fmt.Sprintf("stream %s promises to survive loss of power, but its store is on a memory file system", s.Name),
				Fix:   "put the state folder on a disk (--state), or declare durability: process",
			})
		case c.Syncs >= plausibleSyncs && c.P50 < plausibleSync:
			problems = append(problems, status.Problem{
				Code: "stream/implausible-sync", Since: time.Now(),
				Title: fmt.Sprintf("a sync of stream %s takes %v: no disk is that fast, so something below ignores syncs", s.Name, c.P50),
				Fix:   "look at the mount options and at what the virtual machine does with flushes; until then nothing there survives loss of power",
			})
		}
	}
	return problems
}

// droppedOldest is how many messages a stream has dropped to make room or because of their age. Nothing else removes
// messages from a stream that drops its oldest, so its first sequence tells.
func droppedOldest(s manifest.Stream, first uint64) uint64 {
	if s.Full != wire.FullDropOldest || first == 0 {
		return 0
	}
	return first - 1
}
