package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

// commitPatience is how long the node waits for a sync.
const commitPatience = 10 * time.Second

// keepsPower reports whether what the node stores in a stream must be on disk before it counts as stored: in streams of
// durability power, and in the platform's own as soon as there is one of those, because they hold its events.
func (n *Node) keepsPower(stream string) bool {
	m := n.current()
	if m == nil {
		return false
	}
	own := !slices.ContainsFunc(m.Streams, func(s manifest.Stream) bool { return s.Name == stream })
	return slices.ContainsFunc(m.Streams, func(s manifest.Stream) bool { return s.GroupCommit() && (own || s.Name == stream) })
}

// committed waits until what was stored in a stream is on disk, if that must be so. It takes what publishing returned.
func (n *Node) committed(ctx context.Context, stream string, ack *jetstream.PubAck, err error) error {
	if err != nil {
		return err
	}
	return n.storedUpTo(ctx, stream, ack.Sequence)
}

// storedUpTo waits until what a stream holds up to seq is on disk, if that must be so.
func (n *Node) storedUpTo(ctx context.Context, stream string, seq uint64) error {
	if !n.keepsPower(stream) {
		return nil
	}
	return n.commit(ctx, stream, seq)
}

// commit waits until everything that a stream holds up to seq is on disk.
func (n *Node) commit(ctx context.Context, stream string, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	msg, err := n.nats.RequestWithContext(ctx, wire.CommitSubject+"."+wire.StreamName(stream), strconv.AppendUint(nil, seq, 10))
	if err != nil {
		return fmt.Errorf("wait for stream %s to be on disk: %w", stream, err)
	}
	var done wire.Commit
	switch err := json.Unmarshal(msg.Data, &done); {
	case err != nil:
		return fmt.Errorf("wait for stream %s to be on disk: decode the broker's answer: %w", stream, err)
	case done.Error != "":
		return fmt.Errorf("wait for stream %s to be on disk: %s", stream, done.Error)
	case done.Seq < seq:
		return fmt.Errorf("stream %s ends at %d, before %d", stream, done.Seq, seq)
	}
	return nil
}
