package builtin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/task"
)

// Headers of a pushed task, beside those that it has in common with an event.
const (
	pushTask     = "Hozo-Task"     // id: the same at every attempt
	pushKind     = "Hozo-Kind"     // as in the manifest
	pushTaskKey  = "Hozo-Key"      // what the task belongs to; missing when it belongs to nothing
	pushDeadline = "Hozo-Deadline" // RFC 3339: the request is closed then

	// outcomeHeader is the answer's word in place of its status code, for programs that cannot choose that.
	outcomeHeader = "Hozo-Outcome"
)

const (
	// snoozeDefault is how long a task is put aside that is told "later" without Retry-After.
	snoozeDefault = time.Second

	// snoozeMost bounds a Retry-After: a slip in its unit should not hide a task for years.
	snoozeMost = 24 * time.Hour
)

// taskPusher does tasks by sending each to an HTTP endpoint. The task package keeps it alive while the request is open,
// bounds how many there are, and ends the request when the task is cancelled, lost or out of time.
type taskPusher struct {
	*pusher
	most int64 // bytes of an answer that are read: one more than can be kept
}

// taskPushParts makes a worker of each kind that the grant handles, each with its own connections: a kind whose requests
// hang should not take those of another.
func taskPushParts(conn *bus.Conn, cfg manifest.Target) []hozo.Part {
	var parts []hozo.Part
	workers := cmp.Or(max(cfg.Workers, 0), pushWorkers)
	for _, name := range conn.Grant().Handles {
		p := newTaskPusher(cfg.HTTP, workers, conn)
		parts = append(parts, p.connections(), hozo.HandleResult(taskPushKind(name, cfg), p.do, task.WorkerConfig{Concurrency: workers}))
	}
	return parts
}

func newTaskPusher(target string, workers int, conn *bus.Conn) *taskPusher {
	// The request has the task's time and no other.
	return &taskPusher{newPusher(target, 0, workers), conn.NATS().MaxPayload() + 1}
}

func taskPushKind(name string, cfg manifest.Target) task.ResultKind[[]byte, []byte] {
	return task.NewResultKind[[]byte, []byte](name, task.Config{Attempts: cfg.Attempts, Timeout: cfg.Timeout})
}

// do sends one task. The answer's body is the task's result.
func (p *taskPusher) do(ctx context.Context, t task.Task[[]byte]) ([]byte, error) {
	header := map[string]string{
		pushTask: t.ID, pushKey: t.Kind + ":" + t.ID, pushKind: t.Kind,
		pushAttempt: strconv.Itoa(t.Attempt), pushTime: t.EnqueuedAt.UTC().Format(time.RFC3339Nano),
	}
	if t.Key != "" {
		header[pushTaskKey] = t.Key
	}
	if deadline, ok := ctx.Deadline(); ok {
		header[pushDeadline] = deadline.UTC().Format(time.RFC3339Nano)
	}
	resp, err := p.post(ctx, t.Args, header)
	if err != nil {
		return nil, ended(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, p.most))
	if err != nil {
		return nil, ended(ctx, &fault.Error{Code: "push/no-answer", Where: p.url, What: "the answer broke off", Err: err})
	}
	return body, p.taskOutcome(resp, body)
}

// ended is err, or when it came of the end of ctx that, which the worker knows how to tell.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// taskOutcome turns an answer into what becomes of the task.
func (p *taskPusher) taskOutcome(resp *http.Response, body []byte) error {
	word, code := resp.Header.Get(outcomeHeader), resp.StatusCode
	after := min(retryAfter(resp.Header.Get("Retry-After"), time.Now()), snoozeMost)
	err := p.answered(code, string(body[:min(len(body), pushAnswer)]))
	if word == "" {
		switch {
		case code/100 == 2:
			word = "done"
		case (code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable) && after > 0:
			word = "later"
		case temporary(code):
			word = "retry"
		default: // sending it again would be answered the same
			word = "dead"
		}
	}
	switch word {
	case "done":
		return nil
	case "later":
		return task.Snooze(cmp.Or(after, snoozeDefault))
	case "retry":
		return err
	case "dead":
		return task.Reject(err)
	default:
		return &fault.Error{
			Code: "push/bad-outcome", Where: p.url, What: fmt.Sprintf("the endpoint answers %s: %.40q", outcomeHeader, word),
			Fix: "answer done, later, retry or dead, or leave the header out",
		}
	}
}
