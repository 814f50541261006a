package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/plan"
)

// maxRequest bounds the body of a control request; the largest names a few thousand parked events.
const maxRequest = 1 << 20

// control serves the node's API over HTTP on a unix socket. Whoever may open the socket is the user who runs the project.
type control struct {
	node  *Node
	ready chan struct{}
}

func (c *control) Ready() <-chan struct{} { return c.ready }

func (c *control) Run(ctx context.Context) error {
	path := c.node.state.socket()
	// Only a node that the keeper has started gets here, and it starts one at a time: a socket that is there is a leftover.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale control socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	// Event streams end with the node, not with the last listener's patience.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	server := &http.Server{
		Handler: c.routes(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }() // done is read on both ways out
	close(c.ready)
	select {
	case err = <-done:
		cancel()
		return fmt.Errorf("serve control API: %w", err)
	case <-ctx.Done():
	}
	cancel()
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // answers that take longer than a second are cut off
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control API: %w", err)
	}
	return nil
}

func (c *control) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, c.node.snapshot(r.Context()), nil)
	})
	mux.HandleFunc("GET /v1/events", c.events)
	mux.HandleFunc("POST /v1/apply", func(w http.ResponseWriter, r *http.Request) {
		var in applyRequest
		if !decode(w, r, &in) {
			return
		}
		steps, err := c.node.apply(r.Context(), in.File, in.Env)
		answer(w, applyReply{steps}, err)
	})
	mux.HandleFunc("POST /v1/plan", func(w http.ResponseWriter, r *http.Request) {
		var in applyRequest
		if !decode(w, r, &in) {
			return
		}
		steps, err := c.node.plan(r.Context(), in.File, in.Env)
		answer(w, applyReply{steps}, err)
	})
	mux.HandleFunc("POST /v1/scale", func(w http.ResponseWriter, r *http.Request) {
		var in scaleRequest
		if !decode(w, r, &in) {
			return
		}
		steps, err := c.node.scaleTo(r.Context(), in.Services)
		answer(w, applyReply{steps}, err)
	})
	mux.HandleFunc("POST /v1/access/rotate", func(w http.ResponseWriter, r *http.Request) {
		var in rotateRequest
		if !decode(w, r, &in) {
			return
		}
		done, err := c.node.rotateNamed(r.Context(), in.Names, in.Overlap)
		answer(w, done, err)
	})
	mux.HandleFunc("POST /v1/down", c.down)
	mux.HandleFunc("POST /v1/services/{name}/run", c.errand)
	acts := map[string]func(context.Context, string) error{
		"start": c.node.supervisor.Start, "stop": c.node.supervisor.Stop, "restart": c.node.supervisor.Restart,
	}
	mux.HandleFunc("POST /v1/services/{name}/{act}", func(w http.ResponseWriter, r *http.Request) {
		act, ok := acts[r.PathValue("act")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		answer(w, struct{}{}, act(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("POST /v1/dlq", func(w http.ResponseWriter, r *http.Request) {
		var in listRequest
		if !decode(w, r, &in) {
			return
		}
		letters, err := c.node.deadLetters(r.Context(), in.Filter, in.After, in.Limit)
		answer(w, letters, err)
	})
	mux.HandleFunc("GET /v1/dlq/{seq}", func(w http.ResponseWriter, r *http.Request) {
		seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
		if err != nil {
			answer(w, nil, &fault.Error{Code: "dlq/bad-number", Kind: fault.Misuse, What: "a parked event has a number", Where: r.PathValue("seq"), Fix: "`hozo dlq ls` lists the numbers"})
			return
		}
		letter, err := c.node.deadLetter(r.Context(), seq)
		answer(w, letter, err)
	})
	mux.HandleFunc("POST /v1/dlq/{act}", c.bulk)
	c.taskRoutes(mux)
	mux.HandleFunc("POST /v1/tap", c.tap)
	mux.HandleFunc("POST /v1/replay", c.replay)
	return mux
}

// bulk sends letters back or drops them. It answers with one Bulk a line, the last of which is the end, or the faults.
func (c *control) bulk(w http.ResponseWriter, r *http.Request) {
	var in Selection
	if !decode(w, r, &in) {
		return
	}
	act, ok := map[string]letterAct{"retry": c.node.sendBack, "drop": drop}[r.PathValue("act")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	out := newLines(w)
	done, err := c.node.bulk(r.Context(), in, act, func(b Bulk) { out.send(b) })
	out.end(done, err)
}

// down stops everything, answers, and then has the keeper end itself and this node with it.
func (c *control) down(w http.ResponseWriter, r *http.Request) {
	err := c.node.down(r.Context())
	answer(w, struct{}{}, err)
	if err != nil {
		return
	}
	_ = http.NewResponseController(w).Flush() // a caller who has gone learns nothing
	_ = c.node.keeper.Shutdown(context.WithoutCancel(r.Context()))
}

// events streams changes of instances as one JSON object a line, until the caller goes or the node ends.
func (c *control) events(w http.ResponseWriter, r *http.Request) {
	events, stop := c.node.feed.listen()
	defer stop()
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	if flush.Flush() != nil {
		return
	}
	for {
		select {
		case e, ok := <-events:
			if !ok || out.Encode(e) != nil || flush.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

type applyRequest struct {
	File string `json:"file"`
	Env  string `json:"env"`
}

// scaleRequest sets numbers of instances by hand; 0 gives a service back to the manifest.
type scaleRequest struct {
	Services map[string]int `json:"services"`
}

// rotateRequest names services and foreign clients; none is all services.
type rotateRequest struct {
	Names   []string      `json:"names"`
	Overlap time.Duration `json:"overlap"` // of the passwords of clients
}

type applyReply struct {
	Steps []plan.Step `json:"steps"`
}

// listRequest asks for dead letters.
type listRequest struct {
	Filter
	After uint64 `json:"after,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// faultReply is how errors travel: all of a joined error, each with its parts.
type faultReply struct {
	Errors []wireFault `json:"errors"`
}

type wireFault struct {
	Code   string     `json:"code"`
	Kind   fault.Kind `json:"kind"`
	What   string     `json:"what"`
	Where  string     `json:"where"`
	Source string     `json:"source"`
	Fix    string     `json:"fix"`
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(v); err != nil {
		answer(w, nil, &fault.Error{Code: "node/bad-request", Kind: fault.Misuse, What: "the request cannot be decoded", Err: err})
		return false
	}
	return true
}

// answer writes v, or err as faults with status 422 for misuse and 500 for failure.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		_ = json.NewEncoder(w).Encode(v) // a caller who has gone learns nothing
		return
	}
	code := http.StatusInternalServerError
	if fault.ExitCode(err) == 2 {
		code = http.StatusUnprocessableEntity
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(faultsOf(err)) // as above
}

// faultsOf makes an error fit to travel.
func faultsOf(err error) faultReply {
	var reply faultReply
	for _, one := range fault.Flatten(err) {
		if f, ok := fault.As(one); ok {
			what := f.What
			if f.Err != nil {
				what += ": " + f.Err.Error()
			}
			reply.Errors = append(reply.Errors, wireFault{f.Code, f.Kind, what, f.Where, f.Source, f.Fix})
			continue
		}
		reply.Errors = append(reply.Errors, wireFault{Code: "node/failed", What: one.Error()})
	}
	return reply
}
