package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Provision makes the broker hold what layout says: streams and consumers are made or updated, and consumers of these
// streams that layout does not name are deleted. Doing it again changes nothing. Positions of consumers are kept;
// streams that layout does not name are left alone, since they hold data.
//
// Mistakes that a manifest can make come as faults: broker/no-room when the streams promise more than the store has,
// broker/storage-change when a stream would have to move between disk and memory.
func Provision(ctx context.Context, js jetstream.JetStream, layout Layout) error {
	configs := platformStreams()
	for _, s := range layout.Streams {
		configs = append(configs, s.StreamConfig())
	}
	for _, q := range layout.Queues {
		configs = append(configs, q.streamConfig())
	}
	for _, cfg := range configs {
		if err := provisionStream(ctx, js, cfg); err != nil {
			return err
		}
	}
	wanted := map[string][]ConsumerSpec{}
	for _, c := range slices.Concat(layout.Consumers, taskConsumers(layout)) {
		name := wire.StreamName(c.Stream)
		wanted[name] = append(wanted[name], c)
	}
	for _, cfg := range configs {
		if err := provisionConsumers(ctx, js, cfg.Name, wanted[cfg.Name]); err != nil {
			return err
		}
		delete(wanted, cfg.Name)
	}
	for stream, consumers := range wanted {
		return fmt.Errorf("consumer %s reads stream %s, which is not in the layout", consumers[0].Durable, stream)
	}
	for _, q := range layout.Queues {
		if err := SetPaused(ctx, js, q); err != nil {
			return err
		}
	}
	return nil
}

func provisionStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	stream, err := js.Stream(ctx, cfg.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = js.CreateStream(ctx, cfg)
	case err == nil && stream.CachedInfo().Config.Storage != cfg.Storage:
		return &fault.Error{
			Code: "broker/storage-change", Kind: fault.Misuse,
			What:  fmt.Sprintf("stream %s cannot move between disk and memory while it holds data", cfg.Subjects[0]),
			Where: cfg.Subjects[0],
			Fix:   "keep its durability, or declare a stream with another name",
		}
	case err == nil && repartitioned(stream.CachedInfo(), cfg):
		return &fault.Error{
			Code: "broker/partitions-change", Kind: fault.Misuse,
			What:  fmt.Sprintf("the key and the partitions of stream %s cannot change while it holds events: their order would be lost", cfg.Subjects[0]),
			Where: cfg.Subjects[0],
			Fix:   "declare a stream with another name, or let everything in this one be read and dropped first",
		}
	case err == nil && !sameStream(stream.CachedInfo().Config, cfg):
		_, err = js.UpdateStream(ctx, cfg)
	}
	if err == nil {
		return nil
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && isNoRoom(api) {
		return &fault.Error{
			Code: "broker/no-room", Kind: fault.Misuse, Err: err, Where: cfg.Subjects[0],
			What: fmt.Sprintf("the streams promise more bytes than the broker may store (%s asks for %d)", cfg.Subjects[0], cfg.MaxBytes),
			Fix:  "lower max_bytes of some streams, raise broker.store, or free disk space",
		}
	}
	return fmt.Errorf("provision stream %s: %w", cfg.Subjects[0], err)
}

// Codes of nats-server (errors.json) for a stream whose reservation does not fit.
const (
	errStorageResources = 10047 // JSStorageResourcesExceededErr
	errMemoryResources  = 10028 // JSMemoryResourcesExceededErr
	errNoResources      = 10023 // JSInsufficientResourcesErr
)

func isNoRoom(err *jetstream.APIError) bool {
	return err.ErrorCode == errStorageResources || err.ErrorCode == errMemoryResources || err.ErrorCode == errNoResources
}

// repartitioned reports whether events that are stored would be in other partitions under cfg.
func repartitioned(have *jetstream.StreamInfo, want jetstream.StreamConfig) bool {
	return have.State.Msgs > 0 && !samePartitions(have.Config, want)
}

func samePartitions(have, want jetstream.StreamConfig) bool {
	return have.Metadata[metaPartitions] == want.Metadata[metaPartitions] && have.Metadata[metaKey] == want.Metadata[metaKey]
}

// sameStream compares the fields that a layout decides; the server fills in others of its own.
func sameStream(have, want jetstream.StreamConfig) bool {
	return slices.Equal(have.Subjects, want.Subjects) &&
		have.Retention == want.Retention && have.Discard == want.Discard && have.MaxAge == want.MaxAge &&
		have.MaxBytes == want.MaxBytes && have.Duplicates == want.Duplicates && have.AllowDirect == want.AllowDirect &&
		unlimited(have.MaxMsgs) == unlimited(want.MaxMsgs) &&
		unlimited(have.MaxMsgsPerSubject) == unlimited(want.MaxMsgsPerSubject) &&
		have.DiscardNewPerSubject == want.DiscardNewPerSubject && have.AllowMsgTTL == want.AllowMsgTTL &&
		have.AllowRollup == want.AllowRollup && have.AllowAtomicPublish == want.AllowAtomicPublish &&
		have.AllowMsgSchedules == want.AllowMsgSchedules && samePartitions(have, want) &&
		have.Metadata[wire.MetaPaced] == want.Metadata[wire.MetaPaced]
}

// unlimited maps the server's -1 to the zero that means the same in a request.
func unlimited(n int64) int64 { return max(n, 0) }

func provisionConsumers(ctx context.Context, js jetstream.JetStream, stream string, wanted []ConsumerSpec) error {
	handle, err := js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", stream, err)
	}
	have := map[string]*jetstream.ConsumerInfo{}
	list := handle.ListConsumers(ctx)
	for info := range list.Info() {
		have[info.Name] = info
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("list the consumers of stream %s: %w", stream, err)
	}
	keep := map[string]bool{}
	for _, c := range wanted {
		keep[c.Durable] = true
	}
	// First out, then in: on a work queue two consumers may not overlap, not even for a moment.
	for name := range have {
		if keep[name] {
			continue
		}
		if err := handle.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("delete consumer %s of stream %s: %w", name, stream, err)
		}
	}
	begin := &beginnings{js: js, stream: handle.CachedInfo(), have: have}
	for _, c := range wanted {
		err := provisionConsumer(ctx, handle, c, have[c.Durable], begin)
		for try := 1; try < moveTries && movedMeanwhile(err); try++ {
			var now jetstream.Consumer
			if now, err = handle.Consumer(ctx, c.Durable); err == nil {
				err = provisionConsumer(ctx, handle, c, now.CachedInfo(), begin)
			} else if errors.Is(err, jetstream.ErrConsumerNotFound) {
				err = provisionConsumer(ctx, handle, c, nil, begin)
			}
		}
		if err != nil {
			return fmt.Errorf("provision consumer %s of stream %s: %w", c.Durable, stream, err)
		}
	}
	return nil
}

// moveTries is how often a consumer is looked at anew that its ordered reader moves at the same time. A reader does so
// once after a restart of the broker, or, when two fight for it, at growing intervals.
const moveTries = 8

// movedMeanwhile reports whether a consumer has become another one since it was looked at.
func movedMeanwhile(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	const invalidConfig = 10012 // JSConsumerCreateErrF: where a consumer begins cannot be updated
	return ok && (api.ErrorCode == invalidConfig || api.ErrorCode == jetstream.JSErrCodeConsumerExists || api.ErrorCode == jetstream.JSErrCodeConsumerNotFound)
}

func provisionConsumer(ctx context.Context, stream jetstream.Stream, c ConsumerSpec, have *jetstream.ConsumerInfo, begin *beginnings) error {
	cfg := c.consumerConfig()
	if have != nil && have.Config.AckPolicy == cfg.AckPolicy && have.Config.MemoryStorage == cfg.MemoryStorage {
		// Where a consumer once started cannot be changed and no longer matters.
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = have.Config.DeliverPolicy, have.Config.OptStartSeq, have.Config.OptStartTime
		if sameConsumer(have.Config, cfg) {
			return nil
		}
		_, err := stream.CreateOrUpdateConsumer(ctx, cfg)
		return err
	}
	done, err := begin.after(ctx, c, have)
	if err != nil {
		return err
	}
	if have != nil {
		// The changes that need another consumer: it starts where the old one had finished.
		if err := stream.DeleteConsumer(ctx, have.Name); err != nil {
			return err
		}
	}
	if done > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, done+1
	}
	_, err = stream.CreateOrUpdateConsumer(ctx, cfg)
	return err
}

func sameConsumer(have, want jetstream.ConsumerConfig) bool {
	return have.AckWait == want.AckWait && have.MaxAckPending == want.MaxAckPending && have.MaxDeliver == want.MaxDeliver &&
		have.FilterSubject == want.FilterSubject && slices.Equal(have.FilterSubjects, want.FilterSubjects) &&
		have.Metadata[wire.MetaPaced] == want.Metadata[wire.MetaPaced]
}
