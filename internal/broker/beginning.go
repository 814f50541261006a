package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

// beginnings says where the consumers of one stream begin that are made now.
//
// A consumer of a partition lives in memory: nats-server would write each into a file of its own, ten times a second.
// What it has read is in the record of the partition's owner (wire.Owner), and so is known again after a restart. A
// position that no record holds yet is put into one.
type beginnings struct {
	js     jetstream.JetStream
	stream *jetstream.StreamInfo
	have   map[string]*jetstream.ConsumerInfo // consumers that there were before
}

// after is the sequence behind which the consumer of c begins, 0 for the stream's first. It takes the place of former,
// if that is not nil, or of those that the service had when it read in the order of keys, or not yet.
func (b *beginnings) after(ctx context.Context, c ConsumerSpec, former *jetstream.ConsumerInfo) (uint64, error) {
	service, partition, _ := strings.Cut(c.Durable, "@")
	floor := uint64(0)
	switch {
	case former != nil:
		floor = former.AckFloor.Stream
	case !c.PerKey:
		return b.leastOfPartitions(ctx, c)
	case b.have[service] != nil:
		floor = b.have[service].AckFloor.Stream
	}
	if !c.PerKey {
		return floor, nil
	}
	p, err := strconv.Atoi(partition)
	if err != nil {
		return 0, fmt.Errorf("partition of consumer %s: %w", c.Durable, err)
	}
	return b.record(ctx, wire.OwnerSubject(service, c.Stream, p), p, floor)
}

// leastOfPartitions is how far a service has come in all partitions, which it read in the order of keys: 0 if it never
// did.
func (b *beginnings) leastOfPartitions(ctx context.Context, c ConsumerSpec) (uint64, error) {
	partitions, err := strconv.Atoi(b.stream.Config.Metadata[metaPartitions])
	if err != nil {
		return 0, nil // a stream without a key
	}
	least := uint64(0)
	for p := range partitions {
		done := uint64(0)
		if info := b.have[wire.PartitionDurable(c.Durable, p)]; info != nil {
			done = info.AckFloor.Stream
		} else {
			rec, _, err := b.owner(ctx, wire.OwnerSubject(c.Durable, c.Stream, p))
			if err != nil {
				return 0, err
			}
			done = b.doneOf(rec)
		}
		if done == 0 {
			return 0, nil
		}
		if p == 0 || done < least {
			least = done
		}
	}
	return least, nil
}

// recordTries is how often a record is read anew that its owner replaces at the same time.
const recordTries = 8

// record returns how far a partition is done: what its record says, or floor where that is further, which is recorded.
func (b *beginnings) record(ctx context.Context, subject string, p int, floor uint64) (uint64, error) {
	for try := 1; ; try++ {
		rec, seq, err := b.owner(ctx, subject)
		if err != nil {
			return 0, err
		}
		done := b.doneOf(rec)
		if done >= floor {
			return done, nil
		}
		if done == 0 {
			rec.State = nil
		}
		rec.Partition, rec.Epoch, rec.Done, rec.Created = p, max(rec.Epoch, 1), floor, b.stream.Created
		data, err := json.Marshal(rec)
		if err != nil {
			return 0, fmt.Errorf("encode the record of an owner: %w", err)
		}
		_, err = b.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: data}, jetstream.WithExpectLastSequencePerSubject(seq))
		api, wrong := errors.AsType[*jetstream.APIError](err)
		switch {
		case err == nil:
			return floor, nil
		case !wrong || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence || try == recordTries:
			return 0, fmt.Errorf("record how far partition %d is done: %w", p, err)
		}
	}
}

// owner reads the record of a partition and its sequence, 0 when there is none.
func (b *beginnings) owner(ctx context.Context, subject string) (rec wire.Owner, seq uint64, err error) {
	stream, err := b.js.Stream(ctx, wire.StreamName(wire.OwnerStream))
	if err != nil {
		return rec, 0, fmt.Errorf("look up stream %s: %w", wire.OwnerStream, err)
	}
	msg, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return rec, 0, nil
	}
	if err != nil {
		return rec, 0, fmt.Errorf("read the record of an owner: %w", err)
	}
	if err := json.Unmarshal(msg.Data, &rec); err != nil {
		return wire.Owner{}, msg.Sequence, nil // it says nothing that could be relied on
	}
	return rec, msg.Sequence, nil
}

// doneOf is what a record says of the stream as it is now.
func (b *beginnings) doneOf(rec wire.Owner) uint64 {
	if !rec.Created.Equal(b.stream.Created) {
		return 0 // of one that was made anew since
	}
	return min(rec.Done, b.stream.State.LastSeq)
}
