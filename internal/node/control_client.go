package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/supervisor"
)

// Client speaks to the node of a state folder. It is safe for concurrent use. Faults of the node come back as
// *fault.Error; a node that does not answer is fault node/not-running.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient returns a Client for the project whose state is in dir; it connects when it is used.
func NewClient(dir string) *Client {
	return &Client{dir, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", state(dir).socket())
		},
		DisableKeepAlives: true, // a command asks once; an idle connection would only delay the node's end
	}}}
}

// Status returns the state of the project.
func (c *Client) Status(ctx context.Context) (status.Snapshot, error) {
	var s status.Snapshot
	err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Apply brings the host to the manifest at file and returns the steps that it took.
func (c *Client) Apply(ctx context.Context, file, env string) ([]plan.Step, error) {
	var reply applyReply
	err := c.do(ctx, http.MethodPost, "/v1/apply", applyRequest{file, env}, &reply)
	return reply.Steps, err
}

// Plan returns the steps that Apply would take, and takes none.
func (c *Client) Plan(ctx context.Context, file, env string) ([]plan.Step, error) {
	var reply applyReply
	err := c.do(ctx, http.MethodPost, "/v1/plan", applyRequest{file, env}, &reply)
	return reply.Steps, err
}

// Scale sets numbers of instances by hand, which last until they are set to 0 or the manifest's own number changes, and
// returns the steps that it took.
func (c *Client) Scale(ctx context.Context, services map[string]int) ([]plan.Step, error) {
	var reply applyReply
	err := c.do(ctx, http.MethodPost, "/v1/scale", scaleRequest{services}, &reply)
	return reply.Steps, err
}

// Rotate replaces the credentials of services and foreign clients, or of all services when none is named. The old
// passwords of clients are good for overlap, which is at most MostOverlap.
func (c *Client) Rotate(ctx context.Context, names []string, overlap time.Duration) (Rotation, error) {
	var done Rotation
	err := c.do(ctx, http.MethodPost, "/v1/access/rotate", rotateRequest{names, overlap}, &done)
	return done, err
}

// Down stops everything. It returns when the services are gone; the node and its keeper end right after.
func (c *Client) Down(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/down", struct{}{}, nil)
}

// Start starts a service or an instance and waits until it is ready.
func (c *Client) Start(ctx context.Context, name string) error { return c.act(ctx, name, "start") }

// Stop stops a service or an instance and waits until it is gone.
func (c *Client) Stop(ctx context.Context, name string) error { return c.act(ctx, name, "stop") }

// Restart restarts a service, one instance after the other, or an instance.
func (c *Client) Restart(ctx context.Context, name string) error { return c.act(ctx, name, "restart") }

func (c *Client) act(ctx context.Context, name, act string) error {
	return c.do(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(name)+"/"+act, struct{}{}, nil)
}

// Events yields changes of instances as they happen, until ctx ends or the node does.
func (c *Client) Events(ctx context.Context) iter.Seq2[supervisor.Event, error] {
	return func(yield func(supervisor.Event, error) bool) {
		resp, err := c.send(ctx, http.MethodGet, "/v1/events", nil)
		if err != nil {
			yield(supervisor.Event{}, err)
			return
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var e supervisor.Event
			err := dec.Decode(&e)
			if errors.Is(err, io.EOF) || ctx.Err() != nil || !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// DeadLetters lists up to limit parked events and dead tasks that f lets through, whose number is above after.
func (c *Client) DeadLetters(ctx context.Context, f Filter, after uint64, limit int) ([]DeadLetter, error) {
	var letters []DeadLetter
	err := c.do(ctx, http.MethodPost, "/v1/dlq", listRequest{f, after, limit}, &letters)
	return letters, err
}

// DeadLetter returns one with its data.
func (c *Client) DeadLetter(ctx context.Context, seq uint64) (DeadLetter, error) {
	var letter DeadLetter
	err := c.do(ctx, http.MethodGet, fmt.Sprintf("/v1/dlq/%d", seq), nil, &letter)
	return letter, err
}

// RetryDead sends what s selects back to the services that parked it. What is named and has been sent back before is not
// sent again. tell hears how far it is, and may be nil.
func (c *Client) RetryDead(ctx context.Context, s Selection, tell func(Bulk)) (Bulk, error) {
	return c.bulk(ctx, "retry", s, tell)
}

// DropDead removes what s selects for good, in the manner of RetryDead.
func (c *Client) DropDead(ctx context.Context, s Selection, tell func(Bulk)) (Bulk, error) {
	return c.bulk(ctx, "drop", s, tell)
}

func (c *Client) bulk(ctx context.Context, act string, s Selection, tell func(Bulk)) (Bulk, error) {
	var last Bulk
	resp, err := c.send(ctx, http.MethodPost, "/v1/dlq/"+act, s)
	if err != nil {
		return last, err
	}
	defer resp.Body.Close()
	err = readLines(resp.Body, func(b Bulk) bool {
		last = b
		if tell != nil {
			tell(b)
		}
		return true
	})
	if err == nil && last.Running {
		err = &fault.Error{Code: "node/cut-off", What: "the node has ended in the middle", Fix: "give the command again: what is done is not done twice"}
	}
	return last, err
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the node's answer: %w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, &fault.Error{Code: "node/not-running", What: "the project does not run", Where: c.dir, Fix: "start it with `hozo up`, or name its state folder with --state"}
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var reply faultReply
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || len(reply.Errors) == 0 {
		return nil, fmt.Errorf("the node answered %s to %s %s", resp.Status, method, path)
	}
	return nil, reply.err()
}

// err makes of what has travelled the error that it was.
func (r faultReply) err() error {
	errs := make([]error, len(r.Errors))
	for i, f := range r.Errors {
		errs[i] = &fault.Error{Code: f.Code, Kind: f.Kind, What: f.What, Where: f.Where, Source: f.Source, Fix: f.Fix}
	}
	return errors.Join(errs...)
}
