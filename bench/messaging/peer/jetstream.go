package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// pendingPublishes is how many messages wait for their acknowledgement: nats.go's default of 4,000 for its older API.
const pendingPublishes = 4000

func (s settings) jetstream() (*nats.Conn, jetstream.JetStream, error) {
	nc, err := s.connect()
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(pendingPublishes))
	return nc, js, err
}

// publishAll is an asynchronous publisher, and the wait for its last acknowledgement.
func publishAll(ctx context.Context, js jetstream.JetStream, subject string) (send func([]byte) error, flush func() error) {
	send = func(event []byte) error {
		_, err := js.PublishAsync(subject, append([]byte(nil), event...), jetstream.WithStallWait(10*time.Second))
		return err
	}
	flush = func() error {
		select {
		case <-js.PublishAsyncComplete():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return send, flush
}

func streamPush(ctx context.Context, s settings) error {
	nc, js, err := s.jetstream()
	if err != nil {
		return err
	}
	defer nc.Close()
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	send, flush := publishAll(ctx, js, s.out)
	return errors.Join(s.produce(send, flush), s.rest())
}

// consume makes the stream of s.in, when nobody has, and a durable consumer of its own, and hands its messages to fn.
func (s settings) consume(ctx context.Context, js jetstream.JetStream, fn func(jetstream.Msg)) error {
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: s.in, Subjects: []string{s.in}}); err != nil {
		return fmt.Errorf("make stream %s: %w", s.in, err)
	}
	consumer, err := js.CreateConsumer(ctx, s.in, jetstream.ConsumerConfig{
		Durable: fmt.Sprintf("c%d", monotonic()), AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 20000,
	})
	if err != nil {
		return fmt.Errorf("make a consumer of %s: %w", s.in, err)
	}
	_, err = consumer.Consume(fn, jetstream.PullMaxMessages(4000))
	return err
}

func streamPull(ctx context.Context, s settings) error {
	nc, js, err := s.jetstream()
	if err != nil {
		return err
	}
	defer nc.Close()
	t := newTally(s.size)
	err = s.consume(ctx, js, func(m jetstream.Msg) {
		t.add(m.Data())
		_ = m.Ack() // one that is lost has the message delivered twice, which the tally tells
	})
	if err != nil {
		return err
	}
	ready()
	return errors.Join(t.finish(), s.rest())
}

func streamRelay(ctx context.Context, s settings) error {
	nc, js, err := s.jetstream()
	if err != nil {
		return err
	}
	defer nc.Close()
	send, _ := publishAll(ctx, js, s.out)
	// Faster than is right: the message is acknowledged before its successor is stored.
	err = s.consume(ctx, js, func(m jetstream.Msg) {
		if send(m.Data()) == nil {
			_ = m.Ack()
		}
	})
	if err != nil {
		return err
	}
	ready()
	return s.rest()
}
