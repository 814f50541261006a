package hozo_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of database/sql
)

func TestHandleResultAnswersWhoeverWaits(t *testing.T) {
	platform(t)
	kind := task.NewResultKind[order, int](packing.Name(), task.Config{})
	results := make(chan int, 1)
	s := run(t,
		hozo.HandleResult(kind, func(_ context.Context, one task.Task[order]) (int, error) { return len(one.Args.Item), nil }),
		hozo.Func("shop", func(ctx context.Context, s *hozo.Service) error {
			h, err := kind.Enqueue(ctx, s.Conn(), order{"tea"})
			if err != nil {
				return err
			}
			n, err := h.Wait(ctx)
			results <- n
			<-ctx.Done()
			return err
		}),
	)
	if n := testkit.Wait(t, results); n != 3 {
		t.Errorf("the result is %d", n)
	}
	if err := s.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestHandleBatchGetsTasksTogether(t *testing.T) {
	platform(t)
	sizes := make(chan int, 4) // more than batches
	s := run(t,
		hozo.HandleBatch(packing, func(_ context.Context, all []task.Task[order]) error {
			sizes <- len(all)
			return nil
		}, task.WorkerConfig{Concurrency: 1, Batch: 3, Linger: time.Minute}),
		hozo.Func("shop", func(ctx context.Context, s *hozo.Service) error {
			_, err := packing.EnqueueMany(ctx, s.Conn(), []order{{"tea"}, {"rice"}, {"salt"}})
			<-ctx.Done()
			return err
		}),
	)
	if n := testkit.Wait(t, sizes); n != 3 {
		t.Errorf("%d tasks came together", n)
	}
	if err := s.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRelayEnqueuesWhatATransactionHasCommitted(t *testing.T) {
	platform(t)
	db, err := sql.Open("pgx", testkit.Postgres(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := task.CreateOutbox(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	packed := make(chan string, 1)
	s := run(t, hozo.Relay(db), hozo.Handle(packing, func(_ context.Context, one task.Task[order]) error {
		packed <- one.Args.Item
		return nil
	}))
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := packing.EnqueueTx(t.Context(), tx, order{"tea"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if item := testkit.Wait(t, packed); item != "tea" {
		t.Errorf("%q was packed", item)
	}
	if err := s.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}
