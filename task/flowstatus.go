package task

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// States of workflows and of their tasks, beside those of tasks.
const (
	Waiting State = "waiting" // for others of the workflow
	Blocked State = "blocked" // waits for what has failed, or was cancelled
	Skipped State = "skipped" // a failure branch of what has ended well
	Failed  State = "failed"  // a workflow with a task that has failed
)

// FlowStatus is what is known of a workflow.
type FlowStatus struct {
	Name    string
	State   State // Running, Done, Failed or Cancelled
	Ended   bool  // nothing more becomes of it by itself; a Failed one may have tasks that still run
	Started time.Time
	By      string           // instance that started it
	Tasks   []FlowTaskStatus // each behind those that it waits for
}

// FlowTaskStatus is what is known of a task of a workflow.
type FlowTaskStatus struct {
	Status

	Name      string
	Kind      string
	ID        string
	After     []int // places in Tasks of those that it waits for
	OnFailure bool  // it begins when one of After fails
}

// Failure returns the first task that has failed; nil when none has.
func (s FlowStatus) Failure() *FlowTaskStatus {
	for i, t := range s.Tasks {
		if t.State == Dead || t.State == Expired {
			return &s.Tasks[i]
		}
	}
	return nil
}

// Status asks the broker what is known of the workflow, with two exchanges a task at most. The fault task/unknown says that
// nothing is, or no longer.
func (h FlowHandle) Status(ctx context.Context) (FlowStatus, error) { return h.status(ctx, nil) }

// status takes from known the tasks that are done.
func (h FlowHandle) status(ctx context.Context, known []FlowTaskStatus) (FlowStatus, error) {
	f, err := getFlow(ctx, h.conn, h.ID)
	if err != nil {
		return FlowStatus{}, err
	}
	if f.revision == 0 {
		return FlowStatus{}, h.unknown()
	}
	s := FlowStatus{Name: f.Name, Started: f.Started, By: f.By}
	for i, n := range f.Nodes {
		if len(known) == len(f.Nodes) && known[i].State == Done {
			s.Tasks = append(s.Tasks, known[i])
			continue
		}
		t := FlowTaskStatus{Name: n.Name, Kind: n.Kind, ID: flowID(h.ID, n.Name), After: n.After, OnFailure: n.Failure}
		if t.Status, err = h.taskStatus(ctx, n); err != nil {
			return s, err
		}
		s.Tasks = append(s.Tasks, t)
	}
	s.sum(f.State)
	return s, nil
}

// taskStatus looks at the record of a task, and without one whether it is the task's turn.
func (h FlowHandle) taskStatus(ctx context.Context, n flowNode) (Status, error) {
	task := h.Task(n.Kind, n.Name)
	r, err := getRecord(ctx, h.conn, n.Kind, task.token())
	if err != nil {
		return Status{}, err
	}
	if r.revision > 0 {
		return r.status(), nil
	}
	w, err := getWaiting(ctx, h.conn, n.Kind, task.token())
	if fault.Code(err) == CodeFlowGone {
		return Status{State: Waiting, Attempt: 1}, nil // its start was interrupted
	}
	s := Status{State: Waiting, Attempt: 1}
	if err == nil && (len(n.After) == 0 || w.ready()) {
		s.State = Pending
	}
	return s, err
}

// sum tells the states of what waits, and that of the whole from those of its tasks.
func (s *FlowStatus) sum(recorded State) {
	failed, open, cancelled := false, false, recorded == Cancelled
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.State == Waiting {
			t.State = s.prospect(t)
		}
		switch t.State {
		case Dead, Expired:
			failed = true
		case Cancelled:
			cancelled = cancelled || recorded == "" // FailFast cancels, too
		case Pending, Scheduled, Running, Retrying, Waiting:
			open = true
		}
	}
	s.Ended = !open
	switch {
	case cancelled:
		s.State = Cancelled
	case failed || recorded == Dead:
		s.State = Failed
	case open:
		s.State = Running
	default:
		s.State = Done
	}
}

// prospect is whether a task that waits can ever begin. Those that it waits for are told already.
func (s *FlowStatus) prospect(t *FlowTaskStatus) State {
	possible := false // of a failure branch: something may fail, or has
	for _, i := range t.After {
		switch s.Tasks[i].State {
		case Cancelled, Blocked, Skipped:
			if !t.OnFailure {
				return Blocked
			}
		case Dead, Expired:
			if !t.OnFailure {
				return Blocked
			}
			possible = true
		case Done:
		default:
			possible = true
		}
	}
	if t.OnFailure && !possible {
		return Skipped
	}
	return Waiting
}

// Wait waits until nothing more becomes of the workflow by itself and returns what is known of it. When it has not ended well
// there is a fault as well: task/cancelled, or task/flow-failed, which names the first task that has failed.
func (h FlowHandle) Wait(ctx context.Context) (FlowStatus, error) {
	s, err := h.status(ctx, nil)
	if err != nil && fault.Code(err) != bus.CodeUnavailable {
		return s, err
	}
	changed := make(chan *nats.Msg, 8) // hints; one that finds no room is not missed
	for _, t := range s.Tasks[max(len(s.Tasks)-mostWatched, 0):] {
		sub, err := h.conn.NATS().ChanSubscribe(wire.ChangeSubject(t.Kind, wire.TaskToken(t.ID)), changed)
		if err != nil {
			return s, fmt.Errorf("wait for workflow %s: %w", h.ID, err)
		}
		defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection is closed
	}
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		next, err := h.status(ctx, s.Tasks)
		switch {
		case err == nil:
			s = next
		case ctx.Err() == nil && fault.Code(err) != bus.CodeUnavailable:
			return s, err
		}
		if err == nil && s.Ended {
			return s, s.fault(h)
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return s, &fault.Error{Code: bus.CodeTimedOut, What: fmt.Sprintf("the workflow has not ended in time, it is %s", s.State), Where: "workflow " + h.ID, Err: context.Cause(ctx), Fix: "wait longer; see hozo task flow show"}
		}
	}
}

// mostWatched bounds the subscriptions of a Wait; of a larger workflow the last tasks are watched, and the others are looked at
// every second.
const mostWatched = 64

// fault says how a workflow ended that has not ended well.
func (s FlowStatus) fault(h FlowHandle) error {
	switch s.State {
	case Cancelled:
		return &fault.Error{Code: CodeCancelled, What: "the workflow was cancelled", Where: "workflow " + h.ID, Fix: "start it again if it should run"}
	case Failed:
		f := &fault.Error{Code: CodeFlowFailed, What: "a task of the workflow has failed", Where: "workflow " + h.ID, Fix: "see hozo task flow show " + h.ID + "; when a dead task is retried, what waits for it goes on"}
		if t := s.Failure(); t != nil {
			f.What = fmt.Sprintf("%s of the workflow is %s: %s", t.Name, t.State, t.Error)
		}
		return f
	}
	return nil
}
