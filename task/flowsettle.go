package task

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// enter reads what a workflow has in store for a task before its handler runs, and reports whether it should: not when the
// service may not enqueue what follows, or the workflow has failed. recMu is held.
func (w *pool) enter(work context.Context, l *lease) (run bool) {
	if err := retry(work, func(ctx context.Context) error { return w.know(ctx, l) }); err != nil {
		if fault.Code(err) == CodeFlowGone || fault.Code(err) == CodeBadHeader {
			w.bury(work, l, err)
		}
		return false // else it is delivered again
	}
	n := l.flow
	if bad := l.d.msg.Header.Get(wire.HeaderFlowError); bad != "" {
		w.bury(work, l, &fault.Error{Code: CodeFlowFailed, What: "the task cannot begin: " + bad, Where: "task " + w.kind, Fix: "correct the tasks before it"})
		return false
	}
	grant := w.conn.Grant()
	for _, e := range slices.Concat(n.Next, n.Failed) {
		if !slices.Contains(grant.Enqueues, e.Kind) {
			w.bury(work, l, &fault.Error{
				Code: bus.CodeNoRoute, Where: "task " + w.kind, What: fmt.Sprintf("service %q may not enqueue %q, which follows %s in a workflow", grant.Service, e.Kind, n.Node),
				Fix: fmt.Sprintf("add %s to enqueues of service %s in hozo.yaml, then hozo task retry", e.Kind, grant.Service),
			})
			return false
		}
	}
	if !n.FailFast || n.Input == inputFailure {
		return true
	}
	var f flowRecord
	err := retry(work, func(ctx context.Context) (err error) { f, err = getFlow(ctx, w.conn, n.Flow); return err })
	if err != nil {
		return false
	}
	if f.State == "" || f.Failed == n.Node {
		return true
	}
	next := record{state: Cancelled, copy: l.d.copy, failed: l.rec.failed, code: CodeFlowFailed, err: fmt.Sprintf("%s of the workflow has failed", f.Failed)}
	if retry(work, func(ctx context.Context) error { return l.record(ctx, w, next, n.Keep) }) == nil {
		w.acknowledge(l)
	}
	return false
}

// know reads what a workflow has in store for the task, unless that is known.
func (w *pool) know(ctx context.Context, l *lease) error {
	if l.flow != nil {
		return nil
	}
	n, err := getWaiting(ctx, w.conn, w.kind, l.d.token)
	if err == nil {
		l.flow = &n
	}
	return err
}

// follow has those begin that wait for a task of a workflow, when its end is recorded and before it leaves the queue: if it is
// interrupted, the next delivery of the task does it again. A task without a workflow is followed by nothing.
func (w *pool) follow(ctx context.Context, l *lease, ended record) error {
	if l.d.flow == "" || ended.state == Cancelled {
		return nil
	}
	if err := w.know(ctx, l); err != nil {
		if fault.Code(err) == CodeFlowGone {
			return nil // it has outlasted its workflow
		}
		return err
	}
	n := l.flow
	next, failure := n.Next, (*Failure)(nil)
	if ended.state != Done {
		next, failure = n.Failed, &Failure{Flow: n.Flow, Task: n.Node, Kind: w.kind, ID: l.d.id, Code: ended.code, What: ended.err}
	}
	if n.FailFast {
		if err := w.failFast(ctx, n, failure != nil); err != nil {
			return err
		}
	}
	var errs []error
	for _, e := range next {
		if !slices.Contains(w.conn.Grant().Enqueues, e.Kind) {
			continue // that is why it is dead
		}
		err := arrive(ctx, w.conn, e, n.Flow, n.Node, ended.result, failure, l.d.msg.Header)
		switch fault.Code(err) {
		case CodeFlowGone, CodeBadHeader:
			w.log.ErrorContext(ctx, "a task of a workflow cannot begin", "workflow", n.Flow, "task", e.Node, "error", err)
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// failFast records that the workflow goes no further because of n, or that it does again.
func (w *pool) failFast(ctx context.Context, n *waiting, failed bool) error {
	for {
		f, err := getFlow(ctx, w.conn, n.Flow)
		if err != nil || f.revision == 0 {
			return err
		}
		switch {
		case failed && f.State == "":
			f.State, f.Failed = Dead, n.Node
		case !failed && f.State == Dead && f.Failed == n.Node:
			f.State, f.Failed = "", ""
		default:
			return nil
		}
		if err := f.put(ctx, w.conn, n.Flow); !errors.Is(err, errMoved) {
			return err
		}
	}
}
