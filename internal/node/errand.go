package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/hozo-dev/hozo/internal/supervisor"
)

type errandRequest struct {
	Args []string `json:"args"`
}

// errandEvent is a line of the answer to an errand: first where its output is, then how it ended.
type errandEvent struct {
	Log    string      `json:"log,omitempty"`
	Code   *int        `json:"code,omitempty"` // 128+n for signal n
	Errors *faultReply `json:"errors,omitempty"`
}

// logPatience is how long the output of an errand that has ended is kept for a caller who is still reading it.
const logPatience = 10 * time.Second

// errand runs a service's program once for the caller, and kills it when the caller goes.
func (c *control) errand(w http.ResponseWriter, r *http.Request) {
	var in errandRequest
	if !decode(w, r, &in) {
		return
	}
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	started := ""
	exit, err := c.node.supervisor.RunErrand(r.Context(), r.PathValue("name"), supervisor.Errand{
		Args: in.Args, Log: c.node.state.log,
		Started: func(log string) {
			started = log
			_ = out.Encode(errandEvent{Log: log}) // a caller who has gone is seen by the context
			_ = flush.Flush()                     // as above
		},
	})
	if started == "" {
		answer(w, struct{}{}, err)
		return
	}
	defer os.Remove(started)
	last := errandEvent{Code: new(int)}
	*last.Code = exit.Code
	if exit.Signal != 0 {
		*last.Code = 128 + exit.Signal
	}
	if err != nil {
		reply := faultsOf(err)
		last = errandEvent{Errors: &reply}
	}
	_ = out.Encode(last) // as above
	_ = flush.Flush()    // as above
	select {
	case <-r.Context().Done():
	case <-time.After(logPatience):
	}
}

// Run runs the program of a service once, with args after its own, and returns its exit status, 128+n for signal n. output
// is called with the path of the file that takes its output, and again each time that there may be more; at the last
// call the program has ended. When ctx ends the program is killed.
func (c *Client) Run(ctx context.Context, service string, args []string, output func(path string) error) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // lets the node remove the output
	resp, err := c.send(ctx, http.MethodPost, "/v1/services/"+url.PathEscape(service)+"/run", errandRequest{args})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return followErrand(ctx, cancel, resp.Body, output)
}

// followErrand reads the answer to an errand until it has ended or ctx has; cancel ends the answer.
func followErrand(ctx context.Context, cancel func(), answer io.Reader, output func(path string) error) (int, error) {
	events := make(chan errandEvent)
	failed := make(chan error, 1) // one error, the last thing
	done := make(chan struct{})
	go func() { // ends with the answer, which cancel ends
		defer close(done)
		for dec := json.NewDecoder(answer); ; {
			var e errandEvent
			if err := dec.Decode(&e); err != nil {
				failed <- err
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				failed <- context.Cause(ctx)
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-done
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	path := ""
	for {
		select {
		case e := <-events:
			switch {
			case e.Errors != nil:
				return 0, e.Errors.err()
			case e.Code != nil:
				return *e.Code, output(path)
			}
			path = e.Log
		case err := <-failed:
			if cause := context.Cause(ctx); cause != nil {
				return 0, cause
			}
			if errors.Is(err, io.EOF) {
				err = errors.New("the node ended; the program runs on")
			}
			return 0, err
		case <-tick.C:
			if path != "" {
				if err := output(path); err != nil {
					return 0, err
				}
			}
		}
	}
}
