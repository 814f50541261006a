package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// taskAckWait is short because a worker says every 1.5 s that it is alive: what is silent for 5 s is dead.
	taskAckWait = 5 * time.Second
	// taskMaxAckPending bounds the tasks of one kind and priority that all workers hold together. What waits for its
	// next attempt for more than two seconds is not among them.
	taskMaxAckPending = 8192

	// recordKeep bounds every record, whatever time to live it asks for.
	recordKeep = 90 * 24 * time.Hour

	// forever is how long a paused queue is paused.
	forever = 100 * 365 * 24 * time.Hour
)

// QueueSpec is one queue of tasks.
type QueueSpec struct {
	Name   string
	Kinds  []string
	Paused bool // its tasks stay where they are
	Paced  bool // its tasks wait until they are let out
}

// streamConfig is the JetStream stream of q. It has no limits: a stream with schedules drops the oldest at a limit and
// cannot be told to refuse the newest, so those who enqueue keep the queue's bound.
func (q QueueSpec) streamConfig() jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:     wire.StreamName(wire.QueueStream(q.Name)),
		Subjects: []string{wire.QueueSubjects(q.Name)},
		// A task is deleted when it is done.
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardOld,
		MaxBytes: -1, Storage: jetstream.FileStorage, Duplicates: platformDedupe, Replicas: 1,
		AllowDirect: true, AllowRollup: true, AllowAtomicPublish: true, AllowMsgTTL: true, AllowMsgSchedules: true,
	}
	if q.Paced {
		cfg.Metadata = map[string]string{wire.MetaPaced: "1"}
		// Whoever lets tasks out hears of those that begin to wait without a consumer.
		cfg.RePublish = &jetstream.RePublish{
			Source:      wire.WaitPrefix(q.Name) + "*.*.*.*",
			Destination: wire.WaitingSubject(q.Name) + ".{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}", HeadersOnly: true,
		}
	}
	return cfg
}

// consumers are those of the kinds of q, one a priority and one for frames.
func (q QueueSpec) consumers() []ConsumerSpec {
	var all []ConsumerSpec
	for _, kind := range q.Kinds {
		for priority := wire.TaskPriority1; priority <= wire.TaskPriority3; priority++ {
			all = append(all, ConsumerSpec{
				Stream: wire.QueueStream(q.Name), Durable: wire.TaskDurable(kind, priority),
				Subjects: []string{wire.TaskSubject(q.Name, kind, priority, "*")}, tasks: true, paced: q.Paced,
			})
		}
		all = append(all, ConsumerSpec{
			Stream: wire.QueueStream(q.Name), Durable: wire.FrameDurable(kind),
			Subjects: []string{wire.FrameSubject(q.Name, kind, "*", "*")}, tasks: true,
		})
	}
	return all
}

// taskConsumers are the consumers of all queues.
func taskConsumers(l Layout) []ConsumerSpec {
	var all []ConsumerSpec
	for _, q := range l.Queues {
		all = append(all, q.consumers()...)
	}
	return all
}

// recordStream holds what is known of tasks, one message a task.
func recordStream() jetstream.StreamConfig {
	cfg := StreamSpec{Name: wire.RecordStream, Keep: recordKeep, Dedupe: platformDedupe}.StreamConfig()
	cfg.MaxMsgsPerSubject, cfg.Discard = 1, jetstream.DiscardOld // the newest record replaces the one before
	cfg.AllowMsgTTL = true
	// Whoever waits for a task hears of it without a consumer.
	cfg.RePublish = &jetstream.RePublish{
		Source: wire.RecordSubject("*", "*"), Destination: wire.TaskChange + ".{{wildcard(1)}}.{{wildcard(2)}}", HeadersOnly: true,
	}
	return cfg
}

// SetPaused pauses the queue q or lets it go on. It survives restarts of everything.
func SetPaused(ctx context.Context, js jetstream.JetStream, q QueueSpec) error {
	stream := wire.StreamName(wire.QueueStream(q.Name))
	for _, c := range q.consumers() {
		consumer, err := js.Consumer(ctx, stream, c.Durable)
		if err != nil {
			return fmt.Errorf("look up consumer %s of queue %s: %w", c.Durable, q.Name, err)
		}
		if consumer.CachedInfo().Paused == q.Paused {
			continue
		}
		if q.Paused {
			_, err = js.PauseConsumer(ctx, stream, c.Durable, time.Now().Add(forever))
		} else {
			_, err = js.ResumeConsumer(ctx, stream, c.Durable)
		}
		if err != nil {
			return fmt.Errorf("pause or resume consumer %s of queue %s: %w", c.Durable, q.Name, err)
		}
	}
	return nil
}
