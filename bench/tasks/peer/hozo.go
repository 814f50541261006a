package main

import (
	"context"
	"crypto/rand"
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
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

const kindName = "bench"

var kind = task.NewKind[job](kindName, task.Config{})

// hozoServer is the broker of a project, in a process of its own as `hozo up` starts it. It leaves the grants in its
// folder, and forgets all tasks at each line on its standard input.
func hozoServer(ctx context.Context, s settings) error {
	b, err := broker.New(broker.Config{Dir: s.dir})
	if err != nil {
		return err
	}
	secret := rand.Text()
	access := broker.Access{Users: []broker.User{{Name: broker.PlatformUser, PasswordSHA256: broker.HashPassword(secret)}}}
	layout := broker.Layout{
		Streams: []broker.StreamSpec{{Name: "events", Keep: time.Hour, Dedupe: time.Minute}},
		Queues:  []broker.QueueSpec{{Name: kindName, Kinds: []string{kindName}}},
	}
	for _, g := range []wire.Grant{
		{Service: "produce", Enqueues: []string{kindName}}, {Service: "work", Handles: []string{kindName}},
	} {
		g.Version, g.Project, g.Instance = wire.GrantVersion, "bench", 1
		g.User, g.Password = g.Service+".1", rand.Text()
		g.Inbox = "_INBOX." + g.User
		g.Queues = []wire.TaskQueue{{Name: kindName, Kinds: []string{kindName}, Max: 4e6}}
		if s.power { // tasks are as durable as the most durable stream of a service
			g.Publish = []wire.Route{{Subject: "events", Stream: "events", Compression: "none", Frames: true, Power: true}}
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
		queue, err := js.Stream(ctx, wire.StreamName(wire.QueueStream(kindName)))
		if err == nil {
			err = queue.Purge(ctx)
		}
		if err != nil {
			return err
		}
		ready()
	}
	return nil
}

// join connects as a service; leave is to be called at the end.
func (s settings) join(ctx context.Context, service string) (c *bus.Conn, leave func(), err error) {
	grant, err := wire.ReadGrant(filepath.Join(s.dir, service+".json"))
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

func hozoProduce(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx, "produce")
	if err != nil {
		return err
	}
	defer leave()
	if s.rate > 0 {
		return s.each(s.parallel, func(j job) error {
			_, err := kind.Enqueue(ctx, c, j)
			return err
		}, func() error { return nil })
	}
	e, err := kind.NewEnqueuer(c, task.EnqueuerConfig{})
	if err != nil {
		return err
	}
	return s.each(1, func(j job) error {
		_, err := e.Enqueue(ctx, j)
		return err
	}, func() error { return e.Flush(ctx) })
}

// hozoMany enqueues by thousands.
func hozoMany(ctx context.Context, s settings) error {
	c, leave, err := s.join(ctx, "produce")
	if err != nil {
		return err
	}
	defer leave()
	many := make([]job, 0, task.MaxAtomic)
	flush := func() error {
		_, err := kind.EnqueueMany(ctx, c, many)
		many = many[:0]
		return err
	}
	return s.each(1, func(j job) error {
		many = append(many, j)
		if len(many) < cap(many) {
			return nil
		}
		return flush()
	}, flush)
}

func hozoWork(ctx context.Context, s settings) error {
	return s.handle(ctx, func(c *bus.Conn, t *tally) worker {
		return task.NewWorker(c, kind, func(_ context.Context, one task.Task[job]) error {
			s.work()
			t.add(one.Args)
			return nil
		}, task.WorkerConfig{Concurrency: s.parallel})
	})
}

func hozoBatch(ctx context.Context, s settings) error {
	return s.handle(ctx, func(c *bus.Conn, t *tally) worker {
		return task.NewBatchWorker(c, kind, func(_ context.Context, all []task.Task[job]) error {
			for _, one := range all {
				t.add(one.Args)
			}
			return nil
		}, task.WorkerConfig{Concurrency: 2, Batch: 1000, Linger: 5 * time.Millisecond})
	})
}

type worker interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// handle runs a worker until every task has come and the program may end.
func (s settings) handle(ctx context.Context, newWorker func(*bus.Conn, *tally) worker) error {
	c, leave, err := s.join(ctx, "work")
	if err != nil {
		return err
	}
	defer leave()
	t := newTally(s.n)
	w := newWorker(c, t)
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	var ended error
	running.Go(func() { ended = w.Run(ctx) })
	<-w.Ready()
	ready()
	err = errors.Join(t.finish(), s.rest())
	stop()
	running.Wait()
	return errors.Join(err, ended)
}
