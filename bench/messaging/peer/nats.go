package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsServer is a plain nats-server. Its limit on what a slow reader may have waiting is raised from 64 MiB to 1 GiB:
// core NATS cuts such a reader off, and the comparison is of those who lose nothing. It forgets all events at each line
// on its standard input.
func natsServer(ctx context.Context, s settings) error {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: s.dir, MaxPending: 1 << 30,
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
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ready(srv.ClientURL())
	for s.awaitGo() == nil {
		names := js.StreamNames(ctx)
		for name := range names.Name() {
			if err := js.DeleteStream(ctx, name); err != nil {
				return err
			}
		}
		if names.Err() != nil {
			return names.Err()
		}
		ready()
	}
	return nil
}

func (s settings) connect() (*nats.Conn, error) {
	nc, err := nats.Connect(s.url)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.url, err)
	}
	return nc, nil
}

func natsPush(_ context.Context, s settings) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	err = s.produce(func(event []byte) error { return nc.Publish(s.out, event) }, nc.Flush)
	return errors.Join(err, s.rest())
}

// subscribe hands every message of s.in to fn, however far fn is behind.
func (s settings) subscribe(nc *nats.Conn, fn func(*nats.Msg)) error {
	sub, err := nc.Subscribe(s.in, fn)
	if err != nil {
		return err
	}
	return errors.Join(sub.SetPendingLimits(-1, -1), nc.Flush())
}

func natsPull(_ context.Context, s settings) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	t := newTally(s.size)
	if err := s.subscribe(nc, func(m *nats.Msg) { t.add(m.Data) }); err != nil {
		return err
	}
	ready()
	return errors.Join(t.finish(), s.rest())
}

func natsRelay(_ context.Context, s settings) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	// A message that cannot be sent on is missed by the sink, which the harness tells.
	if err := s.subscribe(nc, func(m *nats.Msg) { _ = nc.Publish(s.out, m.Data) }); err != nil {
		return err
	}
	ready()
	return s.rest()
}

func natsAsk(ctx context.Context, s settings) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = s.askAll(func(question []byte) ([]byte, error) {
		m, err := nc.RequestWithContext(ctx, s.out, question)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	})
	return errors.Join(err, s.rest())
}

func natsAnswer(_ context.Context, s settings) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	if _, err := nc.QueueSubscribe(s.in, "answer", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	ready()
	return s.rest()
}
