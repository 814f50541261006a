package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/wire"
)

// keyedPartitions is what a stream with a key is cut into: enough for 16 instances. Each has frames and a
// consumer of its own.
const keyedPartitions = 16

// hozoGrants are the services of the measured project, as a manifest would declare them.
func hozoGrants() []wire.Grant {
	to := func(stream string) []wire.Route {
		return []wire.Route{{Subject: stream, Stream: stream, Compression: "none", Frames: true}}
	}
	from := func(stream string) []wire.Source { return []wire.Source{{Stream: stream}} }
	grants := []wire.Grant{
		{Service: "push-one", Publish: to("one")},
		{Service: "pull-one", Consumes: from("one")},
		{Service: "push-fan", Publish: to("fan")},
		{Service: "push-c1", Publish: to("c1")},
		{Service: "pull-c4", Consumes: from("c4")},
		{Service: "push-keyed", Publish: []wire.Route{{Subject: "keyed", Stream: "keyed", Compression: "none", Frames: true, Partitions: keyedPartitions, Key: "key"}}},
		{Service: "pull-keyed", Consumes: []wire.Source{{Stream: "keyed", Partitions: keyedPartitions, Key: "key", PerKey: true}}},
		{Service: "tell", Live: []string{"live"}},
		{Service: "hear", Watches: []string{"live"}},
		{Service: "ask", Calls: []string{"echo"}},
		{Service: "answer", Serves: []string{"echo"}},
	}
	for i := range 4 {
		grants = append(grants, wire.Grant{Service: fmt.Sprintf("sub-%d", i), Consumes: from("fan")})
	}
	grants = append(grants, wire.Grant{Service: "pace", Publish: to("ten")})
	for i := range 10 {
		grants = append(grants, wire.Grant{Service: fmt.Sprintf("ten-%d", i), Consumes: from("ten")})
	}
	for i := 1; i <= 3; i++ {
		grants = append(grants, wire.Grant{Service: fmt.Sprintf("relay-%d", i), Consumes: from(fmt.Sprintf("c%d", i)), Publish: to(fmt.Sprintf("c%d", i+1))})
	}
	return grants
}

// hozoServer is the broker of a project, in a process of its own as `hozo up` starts it, with durability process. It
// leaves the grants in its folder, and forgets all events at each line on its standard input.
func hozoServer(ctx context.Context, s settings) error {
	b, err := broker.New(broker.Config{Dir: s.dir})
	if err != nil {
		return err
	}
	secret := rand.Text()
	access := broker.Access{Users: []broker.User{{Name: broker.PlatformUser, PasswordSHA256: broker.HashPassword(secret)}}}
	var layout broker.Layout
	layout.Streams = append(layout.Streams, broker.StreamSpec{Name: "keyed", Keep: time.Hour, Dedupe: 2 * time.Minute, Partitions: keyedPartitions, Key: "key"})
	for _, stream := range []string{"one", "fan", "ten", "c1", "c2", "c3", "c4"} {
		layout.Streams = append(layout.Streams, broker.StreamSpec{Name: stream, Keep: time.Hour, Dedupe: 2 * time.Minute})
	}
	for _, g := range hozoGrants() {
		g.Version, g.Project, g.Instance = wire.GrantVersion, "bench", 1
		g.User, g.Password = g.Service+".1", rand.Text()
		g.Inbox = "_INBOX." + g.User
		if len(g.Consumes) > 0 {
			g.Consumes = append(g.Consumes, wire.Source{Stream: wire.RetryStream, Subjects: []string{wire.RetryStream + "." + g.Service + ".>"}})
		}
		for i := range g.Consumes {
			src := &g.Consumes[i]
			src.Durable = g.Service
			layout.Consumers = append(layout.Consumers, broker.Consumers(*src)...)
		}
		access.Users = append(access.Users, broker.UserOf(g))
		data, err := json.Marshal(g)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.dir, g.Service+".json"), data, 0o600); err != nil {
			return err
		}
	}
	if err := broker.WriteAccess(s.dir, access); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "peer: broker:", err)
		}
	})
	defer running.Wait()
	defer stop()
	select {
	case <-b.Ready():
	case <-time.After(10 * time.Second):
		return errors.New("the broker is not ready after 10 s")
	}
	nc, err := nats.Connect(b.URL(), nats.UserInfo(broker.PlatformUser, secret))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if err := broker.Provision(ctx, js, layout); err != nil {
		return err
	}
	ready(b.URL())
	for s.awaitGo() == nil {
		for _, spec := range layout.Streams {
			stream, err := js.Stream(ctx, wire.StreamName(spec.Name))
			if err != nil {
				return err
			}
			if err := stream.Purge(ctx); err != nil {
				return err
			}
		}
		ready()
	}
	return nil
}

// join connects as the service of the grant; leave is to be called at the end.
func (s settings) join(ctx context.Context) (c *bus.Conn, leave func(), err error) {
	grant, err := wire.ReadGrant(s.grant)
	if err != nil {
		return nil, nil, err
	}
	c, err = bus.Connect(ctx, bus.Config{URL: s.url, Grant: grant})
	if err != nil {
		return nil, nil, err
	}
	return c, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = c.Close(late) // what was to be stored was stored before
	}, nil
}

// serve runs a part of package bus until the program may end; work comes when the part is ready.
func (s settings) serve(ctx context.Context, part interface {
	Run(context.Context) error
	Ready() <-chan struct{}
}, work func() error,
) error {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	var ended error
	running.Go(func() { ended = part.Run(ctx) })
	<-part.Ready()
	ready()
	err := work()
	err = errors.Join(err, s.rest())
	stop()
	running.Wait()
	return errors.Join(err, ended)
}

func hozoPush(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	p, err := c.NewPublisher(s.out, bus.PublisherConfig{})
	if err != nil {
		return err
	}
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	err = s.produce(func(event []byte) error { return p.Send(ctx, event) }, func() error { return p.Flush(ctx) })
	return errors.Join(err, s.rest())
}

// hozoPushKeyed gives each event the key of its number.
func hozoPushKeyed(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	p, err := c.NewPublisher(s.out, bus.PublisherConfig{})
	if err != nil {
		return err
	}
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	err = s.produce(func(event []byte) error {
		return p.SendKey(ctx, eventKeys[keyOf(binary.LittleEndian.Uint64(event))], event)
	}, func() error { return p.Flush(ctx) })
	return errors.Join(err, s.rest())
}

func hozoPull(ctx context.Context, s settings) error { return hozoReceive(ctx, s, newTally(s.size)) }

// hozoPullKeyed reads in the order of keys and checks it.
func hozoPullKeyed(ctx context.Context, s settings) error {
	t := newTally(s.size)
	t.next = make([]uint64, len(eventKeys))
	return hozoReceive(ctx, s, t)
}

func hozoReceive(ctx context.Context, s settings, t *tally) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	key := bus.Key(func(event []byte) string { return eventKeys[keyOf(binary.LittleEndian.Uint64(event))] }) // heeded where there is an order
	stage, err := bus.NewStage(c, bus.NewTopic[[]byte](s.in, key), func(_ context.Context, e bus.Event[[]byte], _ *bus.Out) error {
		t.add(e.Value)
		return nil
	}, bus.StageConfig{Workers: 1}) // as each of the others receives with one thread
	if err != nil {
		return err
	}
	return s.serve(ctx, stage, t.finish)
}

// hozoPace sends at a steady rate and waits for nobody: each event says when it was due.
func hozoPace(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	p, err := c.NewPublisher(s.out, bus.PublisherConfig{})
	if err != nil {
		return err
	}
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	err = s.produceSteadily(func(event []byte) error { return p.Send(ctx, event) }, func() error { return p.Flush(ctx) })
	return errors.Join(err, s.rest())
}

// hozoClock reports how long each event took from when it was due.
func hozoClock(ctx context.Context, s settings) error {
	t := newTally(s.size)
	t.took = make([]int64, 0, 1<<16)
	return hozoReceive(ctx, s, t)
}

// hozoSlow handles a hundredth of what hozoPace sends.
func hozoSlow(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	stage, err := bus.NewStage(c, bus.NewTopic[[]byte](s.in), func(ctx context.Context, _ bus.Event[[]byte], _ *bus.Out) error {
		select {
		case <-time.After(100 * steadyPause):
		case <-ctx.Done():
		}
		return nil
	}, bus.StageConfig{Workers: 1})
	if err != nil {
		return err
	}
	return s.serve(ctx, stage, func() error { return nil })
}

func hozoRelay(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	to := bus.NewTopic[[]byte](s.out)
	stage, err := bus.NewStage(c, bus.NewTopic[[]byte](s.in), func(_ context.Context, e bus.Event[[]byte], out *bus.Out) error {
		return to.Send(out, e.Value)
	}, bus.StageConfig{})
	if err != nil {
		return err
	}
	return s.serve(ctx, stage, func() error { return nil })
}

// hozoTell sends live events by the typed call.
func hozoTell(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	topic := bus.NewTopic[[]byte](s.out)
	err = s.produce(func(event []byte) error {
		_, err := topic.Publish(ctx, c, event)
		return err
	}, c.NATS().Flush)
	return errors.Join(err, s.rest())
}

// hozoHear has room for everything, like the subscriber of raw nats.go: the comparison is of those who lose nothing.
func hozoHear(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	t := newTally(s.size)
	watcher := bus.NewTopic[[]byte](s.in).Watch(c, func(_ context.Context, e bus.Event[[]byte]) error {
		t.add(e.Value)
		return nil
	}, bus.WatchConfig{Buffer: mostEvents, Bytes: 1 << 30})
	return s.serve(ctx, watcher, t.finish)
}

func hozoAsk(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	call := bus.NewCall[[]byte, []byte](s.out)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = s.askAll(func(question []byte) ([]byte, error) { return call.Ask(ctx, c, question) })
	return errors.Join(err, s.rest())
}

func hozoAnswer(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer leave()
	call := bus.NewCall[[]byte, []byte](s.in)
	server := call.Serve(c, func(_ context.Context, question []byte) ([]byte, error) { return question, nil }, bus.ServeConfig{})
	return s.serve(ctx, server, func() error { return nil })
}
