package task

import (
	"context"
	"errors"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// Task is what a handler gets.
type Task[T any] struct {
	ID         string // the same at every attempt: the key to remember a done task by
	Kind       string
	Args       T         // when T is []byte or json.RawMessage it is valid until the handler returns
	Attempt    int       // from 1; counts every time the task was given to a worker, also to one that died or was stopped
	EnqueuedAt time.Time // when the broker stored it
}

// HandlerFunc does one task. It returns nil when the task is done, Reject(err) when trying again is useless, and any
// other error to be called again later. A panic counts as an error. ctx ends when the attempt's time is over, or when
// the process has been stopping for longer than the worker's DrainGrace.
type HandlerFunc[T any] func(ctx context.Context, t Task[T]) error

// Reject tells the worker that trying again is useless: the task becomes a dead letter at once. Its code is that of the
// first fault in err, or else task/rejected.
func Reject(err error) error {
	if err == nil {
		err = errors.New("rejected")
	}
	return &rejection{err}
}

type rejection struct{ err error }

func (r *rejection) Error() string { return r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

// permanent reports whether err says that trying again is useless.
func permanent(err error) bool {
	_, rejected := errors.AsType[*rejection](err)
	return rejected || fault.Code(err) == CodeDecode
}

// codeOf is the code of a dead letter.
func codeOf(err error) string {
	if code := fault.Code(err); code != "" {
		return code
	}
	if permanent(err) {
		return CodeRejected
	}
	return CodeFailed
}
