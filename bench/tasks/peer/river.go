package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// Kind makes a job River's arguments.
func (job) Kind() string { return "bench" }

func (s settings) postgres(ctx context.Context) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(s.url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 32
	return pgxpool.NewWithConfig(ctx, cfg)
}

// riverSchema makes River's tables.
func riverSchema(ctx context.Context, s settings) error {
	pool, err := s.postgres(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	ready(s.url)
	for s.awaitGo() == nil {
		if _, err := pool.Exec(ctx, "TRUNCATE river_job"); err != nil {
			return err
		}
		ready()
	}
	return nil
}

func riverProduce(ctx context.Context, s settings) error {
	pool, err := s.postgres(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := river.NewClient[pgx.Tx](riverpgxv5.New(pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return s.each(s.parallel, func(j job) error {
		_, err := client.Insert(ctx, j, nil)
		return err
	}, func() error { return nil })
}

type riverWorker struct {
	river.WorkerDefaults[job]
	s settings
	t *tally
}

func (w *riverWorker) Work(_ context.Context, j *river.Job[job]) error {
	w.s.work()
	w.t.add(j.Args)
	return nil
}

func riverWork(ctx context.Context, s settings) error {
	pool, err := s.postgres(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	w := &riverWorker{s: s, t: newTally(s.n)}
	workers := river.NewWorkers()
	river.AddWorker(workers, w)
	client, err := river.NewClient[pgx.Tx](riverpgxv5.New(pool), &river.Config{
		Logger: slog.New(slog.DiscardHandler), Workers: workers,
		// More than handlers that run: what is fetched at once is what makes it fast, its own benchmark takes 2,000.
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}},
	})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	ready()
	err = errors.Join(w.t.finish(), s.rest())
	return errors.Join(err, client.Stop(ctx))
}
