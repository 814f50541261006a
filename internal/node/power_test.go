package node_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// A project whose streams have durability power: who publishes and who reads wait for the disk, status says what that
// costs, and what hozo dlq retry and hozo replay store is on disk before they say that it is done.
func TestPowerThroughTheWholeStack(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	p.write(t, fmt.Sprintf(`project: test
streams:
  events.raw: { max_bytes: 64MiB, durability: power }
  copy: { max_bytes: 64MiB, durability: power }
services:
`+manifestServices, p.self, 1))
	if _, err := p.client.Apply(ctx, p.file, ""); err != nil {
		t.Fatal(err)
	}
	p.await(t, "everything ready with the new wiring", ready)
	p.feed(t, "good", "bad", "good")
	s := p.await(t, "three events, one of them parked", func(s status.Snapshot) bool {
		return eventsIn("worker", 3)(s) && service(s, "worker").Traffic.Parked == 1
	})
	for _, stream := range s.Streams {
		if stream.Name == "events.raw" && (stream.Durability != "power" || stream.Sync == nil || stream.Sync.Commits < 3 || stream.Sync.Syncs == 0) {
			t.Errorf("stream %s: durability %s, %+v", stream.Name, stream.Durability, stream.Sync)
		}
	}

	before := p.commits(t)
	if n, err := p.client.RetryDead(ctx, node.Selection{All: true}, nil); n.Count != 1 || err != nil {
		t.Fatalf("sent back %+v letters, %v", n, err)
	}
	sent := p.commits(t)
	if sent["hozo_retry"] != before["hozo_retry"]+1 || sent["hozo_dlq"] < before["hozo_dlq"]+1 {
		t.Errorf("a letter was sent back: commits were %v and are %v", before, sent)
	}
	done, err := p.client.Replay(ctx, node.Replay{ID: "copy", Stream: "events.raw", To: "copy"}, false, nil)
	if err != nil || !done.Done || done.Sent != 3 {
		t.Fatalf("the replay: %+v, %v", done, err)
	}
	if got := p.commits(t); got["copy"] == 0 {
		t.Errorf("a replay says that it is done: commits are %v", got)
	}
}

// commits is how often somebody has waited for each stream, by JetStream names, to be on disk.
func (p *project) commits(t *testing.T) map[string]uint64 {
	t.Helper()
	msg, err := p.admin(t).Conn().RequestWithContext(testkit.Context(t), wire.SyncSubject, nil)
	if err != nil {
		t.Fatal(err)
	}
	var costs []wire.SyncCost
	if err := json.Unmarshal(msg.Data, &costs); err != nil {
		t.Fatal(err)
	}
	all := map[string]uint64{}
	for _, c := range costs {
		all[c.Stream] = c.Commits
	}
	return all
}
