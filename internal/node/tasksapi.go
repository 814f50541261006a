package node

import (
	"context"
	"net/http"
)

// cancelRequest names the tasks to cancel.
type cancelRequest struct {
	TaskFilter
	DryRun bool `json:"dry_run,omitempty"`
}

// queueRequest names a queue.
type queueRequest struct {
	Queue  string `json:"queue"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// taskRoutes are the requests about tasks and queues.
func (c *control) taskRoutes(mux *http.ServeMux) {
	c.flowRoutes(mux)
	mux.HandleFunc("POST /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
		var in TaskFilter
		if decode(w, r, &in) {
			list, err := c.node.tasks(r.Context(), in)
			answer(w, list, err)
		}
	})
	mux.HandleFunc("POST /v1/tasks/cancel", func(w http.ResponseWriter, r *http.Request) {
		var in cancelRequest
		if decode(w, r, &in) {
			done, err := c.node.cancelTasks(r.Context(), in.TaskFilter, in.DryRun)
			answer(w, done, err)
		}
	})
	mux.HandleFunc("POST /v1/tasks/purge", func(w http.ResponseWriter, r *http.Request) {
		var in queueRequest
		if decode(w, r, &in) {
			done, err := c.node.purge(r.Context(), in.Queue, in.DryRun)
			answer(w, done, err)
		}
	})
	mux.HandleFunc("GET /v1/tasks/cron", func(w http.ResponseWriter, r *http.Request) {
		list, err := c.node.cronList(r.Context())
		answer(w, list, err)
	})
	for path, paused := range map[string]bool{"pause": true, "resume": false} {
		mux.HandleFunc("POST /v1/tasks/"+path, func(w http.ResponseWriter, r *http.Request) {
			var in queueRequest
			if decode(w, r, &in) {
				answer(w, struct{}{}, c.node.pause(r.Context(), in.Queue, paused))
			}
		})
	}
}

// Tasks lists tasks: those in the queues first, and then those of which only a record is left.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) (TaskList, error) {
	var list TaskList
	err := c.do(ctx, http.MethodPost, "/v1/tasks", f, &list)
	return list, err
}

// Crons says how the crons do.
func (c *Client) Crons(ctx context.Context) ([]CronStatus, error) {
	var list []CronStatus
	err := c.do(ctx, http.MethodGet, "/v1/tasks/cron", nil, &list)
	return list, err
}

// CancelTasks cancels the tasks that f chooses and that have not ended, or counts them.
func (c *Client) CancelTasks(ctx context.Context, f TaskFilter, dryRun bool) (Cancelled, error) {
	var done Cancelled
	err := c.do(ctx, http.MethodPost, "/v1/tasks/cancel", cancelRequest{f, dryRun}, &done)
	return done, err
}

// PurgeQueue removes all tasks of a queue, or counts them.
func (c *Client) PurgeQueue(ctx context.Context, queue string, dryRun bool) (Purged, error) {
	var done Purged
	err := c.do(ctx, http.MethodPost, "/v1/tasks/purge", queueRequest{queue, dryRun}, &done)
	return done, err
}

// PauseQueue has a queue rest; ResumeQueue has it go on. Both last over restarts of everything.
func (c *Client) PauseQueue(ctx context.Context, queue string) error {
	return c.do(ctx, http.MethodPost, "/v1/tasks/pause", queueRequest{Queue: queue}, nil)
}

// ResumeQueue undoes PauseQueue, or pause in the manifest.
func (c *Client) ResumeQueue(ctx context.Context, queue string) error {
	return c.do(ctx, http.MethodPost, "/v1/tasks/resume", queueRequest{Queue: queue}, nil)
}
