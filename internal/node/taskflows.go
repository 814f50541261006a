package node

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// FlowFilter chooses among workflows; what is empty does not matter.
type FlowFilter struct {
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	State string `json:"state,omitempty"` // running, done, failed or cancelled
	Limit int    `json:"limit,omitempty"` // most workflows; default 100
}

// FlowStatus is what is known of one workflow.
type FlowStatus struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	State   string     `json:"state"`            // running, done, failed or cancelled
	Ended   bool       `json:"ended"`            // nothing more becomes of it by itself
	Failed  string     `json:"failed,omitempty"` // the first task that has failed
	Started time.Time  `json:"started"`
	By      string     `json:"by"`    // instance that started it
	Tasks   []FlowTask `json:"tasks"` // each behind those that it waits for
}

// FlowTask is what is known of a task of a workflow.
type FlowTask struct {
	TaskStatus

	Name      string `json:"name"`
	After     []int  `json:"after,omitempty"`      // places in Tasks of those that it waits for
	OnFailure bool   `json:"on_failure,omitempty"` // it begins when one of After fails
}

// FlowList is what was found, oldest first.
type FlowList struct {
	Flows []FlowStatus `json:"flows"`
	More  bool         `json:"more,omitempty"` // there may be others that were not looked at
}

// taskFlows lists the workflows that f chooses.
func (n *Node) taskFlows(ctx context.Context, f FlowFilter) (FlowList, error) {
	list := FlowList{Flows: []FlowStatus{}}
	limit := f.Limit
	if limit <= 0 {
		limit = taskLimit
	}
	conn, err := n.taskConn(ctx)
	if err != nil {
		return list, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has nothing to store
	token := "*"
	if f.ID != "" {
		token = wire.TaskToken(f.ID)
	}
	looked := 0
	_, err = n.eachMessage(ctx, wire.RecordStream, wire.FlowSubject(token), func(subject string) (bool, error) {
		if len(list.Flows) == limit || looked >= mostLooked {
			list.More = true
			return false, nil
		}
		id, err := wire.ParseTaskToken(subject[strings.LastIndexByte(subject, '.')+1:])
		if err != nil {
			return true, nil //nolint:nilerr // nothing that the task package has stored
		}
		s, err := flowOf(ctx, conn, id)
		if fault.Code(err) == task.CodeUnknown {
			return true, nil // its time is over
		}
		looked += len(s.Tasks)
		if err == nil && (f.State == "" || s.State == f.State) && (f.Name == "" || s.Name == f.Name) {
			list.Flows = append(list.Flows, s)
		}
		return err == nil, err
	})
	return list, err
}

func flowOf(ctx context.Context, conn *bus.Conn, id string) (FlowStatus, error) {
	s, err := task.FindFlow(conn, id).Status(ctx)
	if err != nil {
		return FlowStatus{}, err
	}
	flow := FlowStatus{ID: id, Name: s.Name, State: string(s.State), Ended: s.Ended, Started: s.Started, By: s.By, Tasks: []FlowTask{}}
	if failed := s.Failure(); failed != nil {
		flow.Failed = failed.Name
	}
	for _, t := range s.Tasks {
		flow.Tasks = append(flow.Tasks, FlowTask{
			TaskStatus: taskStatus(t.ID, t.Kind, conn.Grant().QueueOf(t.Kind).Name, t.Status), Name: t.Name, After: t.After, OnFailure: t.OnFailure,
		})
	}
	return flow, nil
}

// cancelFlow cancels a workflow.
func (n *Node) cancelFlow(ctx context.Context, id string) error {
	conn, err := n.taskConn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has nothing to store
	return task.FindFlow(conn, id).Cancel(ctx)
}

// flowRoutes are the requests about workflows.
func (c *control) flowRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/tasks/flows", func(w http.ResponseWriter, r *http.Request) {
		var in FlowFilter
		if decode(w, r, &in) {
			list, err := c.node.taskFlows(r.Context(), in)
			answer(w, list, err)
		}
	})
	mux.HandleFunc("POST /v1/tasks/flows/cancel", func(w http.ResponseWriter, r *http.Request) {
		var in FlowFilter
		if decode(w, r, &in) {
			answer(w, struct{}{}, c.node.cancelFlow(r.Context(), in.ID))
		}
	})
}

// Flows lists workflows, oldest first.
func (c *Client) Flows(ctx context.Context, f FlowFilter) (FlowList, error) {
	var list FlowList
	err := c.do(ctx, http.MethodPost, "/v1/tasks/flows", f, &list)
	return list, err
}

// CancelFlow ends a workflow; what has ended of it stays as it is.
func (c *Client) CancelFlow(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, "/v1/tasks/flows/cancel", FlowFilter{ID: id}, nil)
}
