package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/web"
)

// Run runs the built-in service called name, ingest, route, sink, push or zmq, until ctx ends. Its settings are the Config of the
// grant that the environment names. It returns nil after an asked-for stop; what a person must mend comes as a fault.
func Run(ctx context.Context, name string) error {
	switch name {
	case "ingest":
		return hozo.Run(ctx, withBus(ctx, ingestParts))
	case "route":
		return hozo.Run(ctx, withBus(ctx, routeParts))
	case "sink":
		return runSink(ctx)
	case "push":
		return hozo.Run(ctx, withBus(ctx, pushParts))
	case "zmq":
		return hozo.Run(ctx, withBus(ctx, zmqParts))
	default:
		return &fault.Error{
			Code: "builtin/unknown", Kind: fault.Misuse, What: fmt.Sprintf("there is no built-in service %q", name),
			Fix: "use ingest, route, sink, push or zmq",
		}
	}
}

// withBus makes a service's parts, which need the bus.
func withBus(ctx context.Context, parts func(*hozo.Service) ([]hozo.Part, error)) hozo.Part {
	return hozo.With(func(s *hozo.Service) ([]hozo.Part, error) {
		if s.Conn() == nil {
			_, err := bus.FromEnv(ctx, s.Logger()) // there is no grant: it says so at once
			return nil, err
		}
		return parts(s)
	})
}

// settings reads the grant's Config into T; without one it is the zero T.
func settings[T any](conn *bus.Conn) (T, error) {
	var cfg T
	raw := conn.Grant().Config
	if len(raw) == 0 {
		return cfg, nil
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return cfg, fmt.Errorf("decode settings of service %s: %w", conn.Grant().Service, err)
	}
	return cfg, nil
}

func ingestParts(s *hozo.Service) ([]hozo.Part, error) {
	cfg, err := settings[manifest.Ingest](s.Conn())
	if err != nil {
		return nil, err
	}
	in, err := newIngest(s.Conn(), cfg)
	if err != nil {
		return nil, err
	}
	return []hozo.Part{
		workers(runtime.GOMAXPROCS(0)),
		hozo.HTTP(in, web.Config{MaxBody: in.bodies.limit + bodyRoom, Ready: in.ready}),
	}, nil
}

func routeParts(s *hozo.Service) ([]hozo.Part, error) {
	cfg, err := settings[manifest.RouteBy](s.Conn())
	if err != nil {
		return nil, err
	}
	r, err := newRouter(cfg)
	if err != nil {
		return nil, err
	}
	var parts []hozo.Part
	for _, topic := range topics(s.Conn().Grant()) {
		parts = append(parts, hozo.Stage(topic, r.handle))
	}
	if len(parts) == 0 {
		return nil, &fault.Error{
			Code: "route/no-source", Kind: fault.Misuse, What: "the router consumes nothing", Fix: "add consumes: [NAME OF A STREAM] to the service",
		}
	}
	return parts, nil
}

// runSink opens the target, says that the service is ready when every Sink has its watermark and reads, and closes the
// target when they have stopped.
func runSink(ctx context.Context) (err error) {
	var target sink.Target
	defer func() {
		if target != nil {
			err = errors.Join(err, target.Close())
		}
	}()
	return hozo.Run(ctx, withBus(ctx, func(s *hozo.Service) ([]hozo.Part, error) {
		cfg, err := settings[manifest.Target](s.Conn())
		if err != nil {
			return nil, err
		}
		opened, sinkCfg, err := openTarget(ctx, cfg)
		if err != nil {
			return nil, err
		}
		target = opened
		sinks, err := newSinks(s.Conn(), target, sinkCfg, s.Logger())
		if err != nil {
			return nil, err
		}
		parts := []hozo.Part{workers(len(sinks))}
		for i, one := range sinks {
			parts = append(parts, hozo.Work("sink of "+s.Conn().Grant().Consumes[i].Stream, one))
		}
		return parts, nil
	}))
}

// workers tells, once the service is put together, how many workers are busy when it is saturated.
func workers(n int) hozo.Part {
	return hozo.Func("workers", func(ctx context.Context, s *hozo.Service) error {
		s.Conn().Counters().SetWorkers(n)
		<-ctx.Done()
		return nil
	})
}
