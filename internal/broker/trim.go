package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// trimAbove is the share of its limit, in percent, at which a stream is trimmed.
	trimAbove = 70
	// trimKeep is the share of the limit, in percent, that stays although everyone has read it: ingest recognises a
	// producer's repeated batch by the producer's last frame, so the newest frames must outlive their readers.
	trimKeep = 20
)

// Trim makes room in the streams of layout that are above 70 % of their MaxBytes: it drops what every declared consumer
// has acknowledged, up to the newest fifth of MaxBytes. What one consumer has not acknowledged is never dropped, and a
// stream without consumers is left alone. It returns how many messages it dropped.
//
// It is safe beside consumers and publishers at work.
func Trim(ctx context.Context, js jetstream.JetStream, layout Layout) (uint64, error) {
	consumers := map[string][]string{}
	for _, c := range layout.Consumers {
		consumers[c.Stream] = append(consumers[c.Stream], c.Durable)
	}
	var (
		dropped uint64
		errs    []error
	)
	for _, s := range layout.Streams {
		if s.MaxBytes <= 0 || s.DropOld || len(consumers[s.Name]) == 0 {
			continue
		}
		n, err := trimStream(ctx, js, s, consumers[s.Name])
		dropped += n
		if err != nil {
			errs = append(errs, fmt.Errorf("trim stream %s: %w", s.Name, err))
		}
	}
	return dropped, errors.Join(errs...)
}

func trimStream(ctx context.Context, js jetstream.JetStream, s StreamSpec, durables []string) (uint64, error) {
	stream, err := js.Stream(ctx, wire.StreamName(s.Name)) // fetches the stream's state, before any consumer's
	if err != nil {
		return 0, err
	}
	state := stream.CachedInfo().State
	if state.Msgs == 0 || state.Bytes < uint64(s.MaxBytes)/100*trimAbove {
		return 0, nil
	}
	average := max(state.Bytes/state.Msgs, 1)
	keep := min(uint64(s.MaxBytes)/100*trimKeep/average, state.LastSeq)
	floor := state.LastSeq - keep
	for _, durable := range durables {
		consumer, err := stream.Consumer(ctx, durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return 0, nil // an ordered reader is moving it: its position is not known now
		}
		if err != nil {
			return 0, err
		}
		floor = min(floor, consumed(consumer.CachedInfo(), state.LastSeq))
	}
	if floor < state.FirstSeq {
		return 0, nil
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(floor+1)); err != nil {
		return 0, err
	}
	return floor - state.FirstSeq + 1, nil
}

// consumed is the sequence up to which the consumer needs nothing any more. last is the stream's last sequence at a
// moment before info was made: a consumer that waits for nothing is done with all of it, although the acknowledgement
// floor of a filtered one stands at the last message that passed its filter.
func consumed(info *jetstream.ConsumerInfo, last uint64) uint64 {
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return last
	}
	return info.AckFloor.Stream
}
