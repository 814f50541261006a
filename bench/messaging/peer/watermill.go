package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
)

// publishing is how many callers publish at once: Watermill's Publish returns when the message is stored, so one caller
// alone would measure the way to the server and back.
const publishing = 64

// watermillConfig stores in JetStream, with durable consumers that acknowledge without waiting.
func watermillConfig(durable string) wmnats.JetStreamConfig {
	return wmnats.JetStreamConfig{AutoProvision: true, DurablePrefix: durable, AckAsync: true, SubscribeOptions: []nats.SubOpt{nats.MaxAckPending(20000)}}
}

func watermillPush(_ context.Context, s settings) error {
	pub, err := wmnats.NewPublisher(wmnats.PublisherConfig{
		URL: s.url, JetStream: watermillConfig(""), Marshaler: &wmnats.NATSMarshaler{},
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	defer pub.Close()
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	var (
		callers sync.WaitGroup
		mu      sync.Mutex
		failed  error
	)
	events := make(chan []byte)
	for range publishing {
		callers.Go(func() {
			for event := range events {
				if err := pub.Publish(s.out, message.NewMessage(watermill.NewShortUUID(), event)); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	err = s.produce(func(event []byte) error {
		events <- append([]byte(nil), event...)
		return nil
	}, func() error {
		close(events)
		callers.Wait()
		return failed
	})
	return errors.Join(err, s.rest())
}

func watermillPull(ctx context.Context, s settings) error {
	sub, err := wmnats.NewSubscriber(wmnats.SubscriberConfig{
		URL: s.url, JetStream: watermillConfig("bench"), Unmarshaler: &wmnats.NATSMarshaler{}, AckWaitTimeout: 30 * time.Second,
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	defer sub.Close()
	messages, err := sub.Subscribe(ctx, s.in)
	if err != nil {
		return err
	}
	t := newTally(s.size)
	var reading sync.WaitGroup
	reading.Go(func() {
		for m := range messages {
			t.add(m.Payload)
			m.Ack()
		}
	})
	ready()
	return errors.Join(t.finish(), s.rest())
}
