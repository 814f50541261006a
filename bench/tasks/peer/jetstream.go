package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsServer is a plain nats-server. It forgets all tasks at each line on its standard input.
func natsServer(ctx context.Context, s settings) error {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: s.dir,
	})
	if err != nil {
		return err
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(10 * time.Second) {
		return errors.New("the server is not ready after 10 s")
	}
	nc, js, err := stream(srv.ClientURL())
	if err != nil {
		return err
	}
	defer nc.Close()
	queue, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "bench", Subjects: []string{"bench.>"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		return err
	}
	if _, err := queue.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "bench", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 8192,
	}); err != nil {
		return err
	}
	ready(srv.ClientURL())
	for s.awaitGo() == nil {
		if err := queue.Purge(ctx); err != nil {
			return err
		}
		ready()
	}
	return nil
}

func stream(url string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000)) // as many as nats.go's older API
	return nc, js, err
}

func streamProduce(ctx context.Context, s settings) error {
	nc, js, err := stream(s.url)
	if err != nil {
		return err
	}
	defer nc.Close()
	return s.each(s.producers(), func(j job) error {
		data, err := json.Marshal(j)
		if err == nil {
			_, err = js.PublishAsync("bench.task", data, jetstream.WithStallWait(10*time.Second))
		}
		return err
	}, func() error {
		select {
		case <-js.PublishAsyncComplete():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// producers is how many goroutines enqueue where a call does not wait for the broker.
func (s settings) producers() int {
	if s.rate > 0 {
		return s.parallel
	}
	return 1
}

func streamWork(ctx context.Context, s settings) error {
	nc, js, err := stream(s.url)
	if err != nil {
		return err
	}
	defer nc.Close()
	consumer, err := js.Consumer(ctx, "bench", "bench")
	if err != nil {
		return err
	}
	t := newTally(s.n)
	free := make(chan struct{}, s.parallel)
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		handle := func() {
			s.work()
			t.addJSON(m.Data())
			_ = m.Ack() // one that is lost has the task come twice, which the tally tells
		}
		if s.busy == 0 {
			handle()
			return
		}
		free <- struct{}{}
		go func() {
			handle()
			<-free
		}()
	}, jetstream.PullMaxMessages(4000))
	if err != nil {
		return err
	}
	ready()
	err = errors.Join(t.finish(), s.rest())
	consuming.Stop()
	return err
}
