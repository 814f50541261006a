package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Codes of the faults of Step.
const (
	CodeBadStep = "task/bad-step" // a step without a good name, or with one that was used before
)

// MaxSteps is how many steps a task may have.
const MaxSteps = 1000

// steps are the names of the steps that an attempt has come to. The zero value has none.
type steps struct {
	mu    sync.Mutex
	names map[string]bool
}

func (s *steps) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = nil
}

func (s *steps) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.names) > 0
}

// add notes a step, or says why it cannot be one.
func (s *steps) add(name string) (problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !validName(name):
		return fmt.Sprintf("%q cannot be the name of a step: 1 to %d letters, digits, dots, dashes and underscores", name, maxNodeName)
	case s.names[name]:
		return fmt.Sprintf("the task has come to a step named %q twice, and would skip the second", name)
	case len(s.names) == MaxSteps:
		return fmt.Sprintf("the task has more than %d steps", MaxSteps)
	}
	if s.names == nil {
		s.names = map[string]bool{}
	}
	s.names[name] = true
	return ""
}

// Step runs fn and keeps its result, which encoding/json must be able to write and read; when the task is run again, by
// whichever worker, Step returns that result and does not run fn. So a task of several slow steps goes on at the first
// that is not done:
//
//	pages, err := task.Step(ctx, t, "render", func(ctx context.Context) ([]string, error) { return render(ctx, t.Args) })
//
// A step that fails is run again with the next attempt. One whose worker dies before its result is stored is run again, too;
// at most one result of a step is ever kept. Names are the task's own and must not repeat, which task/bad-step says. What is
// kept is removed when the task is done, and stays 30 days when it is dead, so that a retry goes on there. A step costs a
// read and, when it is run, a stored message.
func Step[T, R any](ctx context.Context, t Task[T], name string, fn func(ctx context.Context) (R, error)) (result R, err error) {
	if t.lease == nil {
		return fn(ctx) // a task of a unit test
	}
	if problem := t.lease.steps.add(name); problem != "" {
		return result, Reject(&fault.Error{Code: CodeBadStep, What: problem, Where: "task " + t.Kind, Fix: "give each step of a task a name of its own"})
	}
	c := t.lease.conn
	subject := wire.StepSubject(t.Kind, wire.TaskToken(t.ID+":"+name))
	kept, err := directGet(ctx, c, wire.RecordStream, subject)
	if err != nil {
		return result, err
	}
	if kept == nil || len(kept.data) == 0 {
		if result, err = fn(ctx); err != nil {
			return result, err
		}
		kept, err = saveStep(ctx, c, t.Kind, name, subject, kept, result)
		if err != nil || kept == nil {
			return result, err
		}
	}
	var stored R
	if err := json.Unmarshal(kept.data, &stored); err != nil {
		return result, Reject(&fault.Error{
			Code: CodeDecode, What: fmt.Sprintf("what the step %q has left is no %T", name, stored), Where: "task " + t.Kind, Err: err, Fix: "give a step another name when its type changes",
		})
	}
	return stored, nil
}

// saveStep stores the result of a step. It returns what somebody else has stored meanwhile, or nil.
func saveStep(ctx context.Context, c *bus.Conn, kind, name, subject string, before *stored, result any) (*stored, error) {
	data, err := json.Marshal(result)
	if err != nil {
		return nil, Reject(fmt.Errorf("encode the result of step %s of task %s: %w", name, kind, err))
	}
	if limit := int(c.NATS().MaxPayload()) - headroomBytes; len(data) > limit {
		return nil, Reject(&fault.Error{
			Code: bus.CodeTooLarge, What: fmt.Sprintf("the result of step %q has %d bytes, over the limit of %d", name, len(data), limit),
			Where: "task " + kind, Fix: "store the data elsewhere and return its address",
		})
	}
	var revision uint64
	if before != nil {
		revision = before.seq
	}
	_, err = putKept(ctx, c, subject, data, revision, deadKeep)
	if errors.Is(err, errMoved) {
		return directGet(ctx, c, wire.RecordStream, subject) // by a worker that was believed to be dead, or an earlier try of this
	}
	if err == nil {
		step(stepSaved)
	}
	return nil, err
}

// forgetSteps removes what the steps of a done task have left. What is not removed, because the broker is away, lasts as long as
// that of a dead task.
func (w *pool) forgetSteps(l *lease) {
	l.steps.mu.Lock()
	defer l.steps.mu.Unlock()
	for name := range l.steps.names {
		_ = w.conn.NATS().PublishMsg(&nats.Msg{
			Subject: wire.StepSubject(w.kind, wire.TaskToken(l.d.id+":"+name)),
			Header:  nats.Header{jetstream.MsgTTLHeader: {"1s"}}, // JetStream's shortest
		})
	}
}
