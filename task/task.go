package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// Task is what a handler gets.
type Task[T any] struct {
	ID         string // the same at every attempt: the key to remember a done task by
	Kind       string
	Key        string    // what Key has said
	Args       T         // when T is []byte or json.RawMessage it is valid until the handler returns
	Attempt    int       // from 1: one more than attempts have failed; a worker that dies or is stopped fails none
	EnqueuedAt time.Time // when the broker stored this copy of the task: it is made anew for a later attempt

	lease *lease
}

// Progress tells how far the task is, in per cent, with a note of at most a few words. It is written at most once a
// second, so it can be called often, and can be read by Handle.Status.
func (t Task[T]) Progress(percent int, note string) {
	if t.lease != nil {
		t.lease.report(percent, note)
	}
}

// HandlerFunc does one task. It returns nil when the task is done, Reject(err) when trying again is useless, Snooze(d)
// to be called again after d without an attempt spent, and any other error to be called again later. A panic counts as
// an error. ctx ends when the attempt's time is over, when the task is cancelled or may be another worker's by now, or
// when the process has been stopping for longer than the worker's DrainGrace.
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

// Snooze tells the worker that the task should be run again after d, and that nothing has failed: no attempt is spent.
func Snooze(d time.Duration) error { return &snooze{max(d, 0)} }

type snooze struct{ d time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("to be run again in %v", s.d) }

// permanent reports whether err says that trying again is useless.
func permanent(err error) bool {
	if _, rejected := errors.AsType[*rejection](err); rejected {
		return true
	}
	switch fault.Code(err) {
	case CodeDecode, CodeBadHeader, CodeInterrupted:
		return true
	}
	return false
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
