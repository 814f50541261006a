package task

import (
	"context"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
)

// DefaultKeep is how long results are kept by default.
const DefaultKeep = time.Hour

// ResultKind is a Kind whose tasks have a result of type R, written and read as arguments are.
type ResultKind[A, R any] struct{ Kind[A] }

// NewResultKind names a kind of tasks with a result. Keep of cfg is an hour by default.
func NewResultKind[A, R any](name string, cfg Config) ResultKind[A, R] {
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	return ResultKind[A, R]{NewKind[A](name, cfg)}
}

// ResultHandle names a task that has a result.
type ResultHandle[R any] struct{ Handle }

// Enqueue is Kind.Enqueue.
func (k ResultKind[A, R]) Enqueue(ctx context.Context, c *bus.Conn, args A, opts ...Option) (ResultHandle[R], error) {
	h, err := k.Kind.Enqueue(ctx, c, args, opts...)
	return ResultHandle[R]{h}, err
}

// Find is Kind.Find.
func (k ResultKind[A, R]) Find(c *bus.Conn, id string) ResultHandle[R] {
	return ResultHandle[R]{k.Kind.Find(c, id)}
}

// Wait waits until the task has ended and returns its result, or why there is none: see Handle.Wait.
func (h ResultHandle[R]) Wait(ctx context.Context) (result R, err error) {
	s, err := h.Handle.Wait(ctx)
	if err != nil {
		return result, err
	}
	if err := unmarshal(s.Result, &result); err != nil {
		return result, &fault.Error{Code: CodeDecode, What: fmt.Sprintf("the result is no %T", result), Where: h.where(), Err: err, Fix: "let both sides use one type"}
	}
	return result, nil
}
