package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/web"
	"github.com/hozo-dev/hozo/wire"
)

// Run runs the built-in service called name (ingest, route or sink) under the grant in the environment, until ctx ends.
func Run(ctx context.Context, name string) error {
	switch name {
	case "ingest":
		return hozo.Run(ctx, hozo.With(ingestParts))
	case "route":
		return hozo.Run(ctx, hozo.With(routeParts))
	case "sink":
		return runSink(ctx)
	default:
		return &fault.Error{
			Code: "builtin/unknown", Kind: fault.Misuse, What: fmt.Sprintf("there is no built-in service %q", name), Fix: "use ingest, route or sink",
		}
	}
}

func settings[T any](s *hozo.Service) (T, error) {
	var v T
	if err := json.Unmarshal(s.Conn().Grant().Config, &v); err != nil {
		return v, fmt.Errorf("decode settings of %s: %w", s.Name(), err)
	}
	return v, nil
}

func ingestParts(s *hozo.Service) ([]hozo.Part, error) {
	cfg, err := settings[manifest.Ingest](s)
	if err != nil {
		return nil, err
	}
	in, err := newIngest(s.Conn(), cfg)
	if err != nil {
		return nil, err
	}
	var parts []hozo.Part
	for subject, stream := range in.streams {
		parts = append(parts, hozo.Func("publisher of "+subject, func(ctx context.Context, _ *hozo.Service) error {
			return stream.publisher.Run(ctx)
		}))
	}
	// Bodies are bounded by ingest itself, which knows what they decompress to.
	return append(parts, hozo.HTTP(in, web.Config{Ready: in.ready, MaxBody: math.MaxInt64})), nil
}

func routeParts(s *hozo.Service) ([]hozo.Part, error) {
	cfg, err := settings[manifest.RouteBy](s)
	if err != nil {
		return nil, err
	}
	r, err := newRouter(cfg)
	if err != nil {
		return nil, err
	}
	var parts []hozo.Part
	for _, src := range s.Conn().Grant().Consumes {
		if src.Stream == wire.RetryStream {
			continue // a stage reads its own way back for retried events
		}
		parts = append(parts, hozo.Stage(bus.NewTopic[[]byte](src.Stream), r.handle))
	}
	return parts, nil
}

func runSink(ctx context.Context) (err error) {
	var closeTarget func() error
	defer func() {
		if closeTarget != nil {
			err = errors.Join(err, closeTarget())
		}
	}()
	return hozo.Run(ctx, hozo.With(func(s *hozo.Service) ([]hozo.Part, error) {
		cfg, err := settings[manifest.Target](s)
		if err != nil {
			return nil, err
		}
		target, sinkConfig, err := openTarget(ctx, cfg)
		if err != nil {
			return nil, err
		}
		closeTarget = target.Close
		sinks, err := newSinks(s.Conn(), target, sinkConfig, s.Logger())
		if err != nil {
			return nil, err
		}
		var parts []hozo.Part
		for _, one := range sinks {
			parts = append(parts, hozo.Func("sink", func(ctx context.Context, _ *hozo.Service) error { return one.Run(ctx) }))
		}
		return parts, nil
	}))
}
