package builtin

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/file"
	"github.com/hozo-dev/hozo/sink/postgres"
	"github.com/hozo-dev/hozo/sink/sqlite"
)

// openTarget opens what the manifest names and says how a Sink drives it.
func openTarget(ctx context.Context, cfg manifest.Target) (sink.Target, sink.Config, error) {
	switch {
	case cfg.SQLite != "" && cfg.File+cfg.Postgres == "":
		t, err := sqlite.Open(ctx, cfg.SQLite, sqlite.Config{Table: cfg.Table, Columns: cfg.Columns})
		if err != nil {
			return nil, sink.Config{}, err
		}
		return t, sink.Config{}, nil
	case cfg.Postgres != "" && cfg.File+cfg.SQLite == "":
		t, err := postgres.Open(cfg.Postgres, postgres.Config{Table: cfg.Table, Columns: cfg.Columns})
		if err != nil {
			return nil, sink.Config{}, err
		}
		return t, sink.Config{}, nil
	case cfg.File != "" && cfg.SQLite+cfg.Postgres == "":
		t, err := file.Open(cfg.File, file.Config{RotateBytes: int64(cfg.Rotate.Bytes)})
		if err != nil {
			return nil, sink.Config{}, err
		}
		return t, sink.Config{FlushAge: cfg.Rotate.Age}, nil
	default:
		return nil, sink.Config{}, &fault.Error{
			Code: "sink/no-target", Kind: fault.Misuse, Where: "to", What: "a sink writes to exactly one of sqlite, postgres and file",
			Fix: "add to: { sqlite: data/events.db }, to: { postgres: URL } or to: { file: data/events }",
		}
	}
}

// newSinks makes one Sink for each source of the grant.
func newSinks(conn *bus.Conn, target sink.Target, cfg sink.Config, logger *slog.Logger) ([]*sink.Sink, error) {
	cfg.Logger = logger
	seen := make(map[string]bool)
	var sinks []*sink.Sink
	for _, src := range conn.Grant().Consumes {
		if seen[src.Stream] {
			return nil, &fault.Error{
				Code: "sink/source-twice", Kind: fault.Misuse, Where: src.Stream, What: "a sink reads each stream once, because it keeps one watermark for it",
				Fix: "consume the whole stream, or use one sink service for each part",
			}
		}
		seen[src.Stream] = true
		s, err := sink.New(conn, src, target, cfg)
		if err != nil {
			return nil, fmt.Errorf("sink of %s: %w", src.Stream, err)
		}
		sinks = append(sinks, s)
	}
	if len(sinks) == 0 {
		return nil, &fault.Error{
			Code: "sink/no-source", Kind: fault.Misuse, What: "the sink consumes nothing", Fix: "add consumes: [NAME OF A STREAM] to the service",
		}
	}
	return sinks, nil
}
