package hozo_test

import (
	"context"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
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
