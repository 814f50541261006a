package broker

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

// Layout is every stream and consumer that a project declares. The platform's own streams (wire.DeadStream,
// wire.RetryStream and wire.RecordStream) belong to every layout and are not listed; their consumers are.
type Layout struct {
	Streams   []StreamSpec
	Consumers []ConsumerSpec
	Queues    []QueueSpec
}

// StreamSpec is one stream of the manifest.
type StreamSpec struct {
	Name       string        // in the manifest: "events.raw"
	Keep       time.Duration // age at which messages are dropped; zero keeps them for ever
	MaxBytes   int64         // most bytes on disk, beyond which publishing is refused; zero means no limit of its own
	DropOld    bool          // a full stream drops its oldest messages, read or not, instead of refusing new ones
	Memory     bool          // lives in the broker's memory
	Partitions int           // of a stream with a key; 0 without one
	Key        string        // what stands for it in the manifest
	Dedupe     time.Duration // window in which a repeated message id is dropped; zero means two minutes
}

// ConsumerSpec is one durable consumer.
type ConsumerSpec struct {
	Stream   string   // the manifest's name of the stream, or one of the platform's
	Durable  string   // JetStream name of the consumer
	Subjects []string // filter; empty means everything
	Ordered  bool     // read in order and acknowledged cumulatively
	PerKey   bool     // one partition of a source that is read in the order of keys: its owner's record keeps its position
	Foreign  bool     // read by a client that does not say "in progress"
	tasks    bool     // hands out tasks
	paced    bool     // and those of a limited queue
}

// Consumers are the consumers that src is read by: one, or one for each partition.
func Consumers(src wire.Source) []ConsumerSpec {
	var all []ConsumerSpec
	for _, r := range src.Readers() {
		all = append(all, ConsumerSpec{Stream: r.Stream, Durable: r.Durable, Subjects: r.Subjects, Ordered: r.Ordered, PerKey: src.PerKey})
	}
	return all
}

const (
	deadKeep  = 30 * 24 * time.Hour // a month to notice and to mend
	retryKeep = 7 * 24 * time.Hour  // longer than any consumer should be away

	// The platform's streams are bounded by messages and not by bytes: JetStream reserves a stream's bytes when it is
	// made, and a reservation for what is empty most of the time would refuse the user's own streams on a small disk.
	// A million parked events are a mistake in a program and not in events.
	deadMaxMsgs  = 1_000_000
	retryMaxMsgs = 1_000_000

	defaultDedupe  = 2 * time.Minute // JetStream's own default
	platformDedupe = 10 * time.Minute

	// stageAckWait is short because a stage says "in progress" while it holds a frame: what is silent for 5s is dead.
	stageAckWait = 5 * time.Second
	// foreignAckWait is JetStream's own default, which clients of NATS expect.
	foreignAckWait = 30 * time.Second
	// stageMaxAckPending bounds the frames that all instances of a service hold together.
	stageMaxAckPending = 4096
	// orderedAckWait is long because an ordered reader starts over at its own watermark; redelivery only confuses it.
	orderedAckWait = time.Hour
)

// StreamConfig is the JetStream stream of s. Frames are compressed already, so the store does not do it again.
func (s StreamSpec) StreamConfig() jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:        wire.StreamName(s.Name),
		Subjects:    wire.StreamSubjects(s.Name),
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew, // refuse the newest rather than drop what nobody has read
		MaxAge:      s.Keep,
		MaxBytes:    s.MaxBytes,
		Storage:     jetstream.FileStorage,
		Duplicates:  s.Dedupe,
		Replicas:    1,
		AllowDirect: true,
	}
	if s.Partitions > 0 {
		cfg.Metadata = map[string]string{metaPartitions: strconv.Itoa(s.Partitions), metaKey: s.Key}
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = -1
	}
	if cfg.Duplicates == 0 {
		cfg.Duplicates = defaultDedupe
	}
	if cfg.MaxAge > 0 {
		cfg.Duplicates = min(cfg.Duplicates, cfg.MaxAge) // JetStream's rule
	}
	if s.DropOld {
		cfg.Discard = jetstream.DiscardOld
	}
	if s.Memory {
		cfg.Storage = jetstream.MemoryStorage
	}
	return cfg
}

// Of a stream's metadata: how its events were shared out when they were stored.
const (
	metaPartitions = "hozo-partitions"
	metaKey        = "hozo-key"
)

// platformStreams are the streams that every project has.
func platformStreams() []jetstream.StreamConfig {
	dead := StreamSpec{Name: wire.DeadStream, Keep: deadKeep, Dedupe: platformDedupe}.StreamConfig()
	dead.MaxMsgs = deadMaxMsgs
	dead.MaxMsgsPerSubject = 1 // an event is parked once
	dead.DiscardNewPerSubject = true
	retry := StreamSpec{Name: wire.RetryStream, Keep: retryKeep, Dedupe: platformDedupe}.StreamConfig()
	retry.MaxMsgs = retryMaxMsgs
	owner := StreamSpec{Name: wire.OwnerStream, Dedupe: platformDedupe}.StreamConfig()
	owner.MaxMsgsPerSubject = 1 // only the last record counts
	owner.Discard = jetstream.DiscardOld
	owner.AllowMsgTTL = true // members that come and go are forgotten
	return []jetstream.StreamConfig{dead, retry, owner, recordStream()}
}

// consumerConfig is the JetStream consumer of c.
func (c ConsumerSpec) consumerConfig() jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable:       c.Durable,
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       stageAckWait,
		MaxDeliver:    -1,
		MaxAckPending: stageMaxAckPending,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
	}
	if c.Foreign {
		cfg.AckWait = foreignAckWait
	}
	if c.tasks {
		cfg.AckWait, cfg.MaxAckPending = taskAckWait, taskMaxAckPending
	}
	if c.paced {
		cfg.Metadata = map[string]string{wire.MetaPaced: "1"}
	}
	if c.Ordered {
		cfg.AckPolicy, cfg.AckWait, cfg.MaxAckPending = jetstream.AckAllPolicy, orderedAckWait, -1
	}
	cfg.MemoryStorage = c.PerKey // a file of its own would be written ten times a second
	switch len(c.Subjects) {
	case 0:
	case 1:
		cfg.FilterSubject = c.Subjects[0]
	default:
		cfg.FilterSubjects = c.Subjects
	}
	return cfg
}
