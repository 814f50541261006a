package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/web"
)

const (
	tasksPath = "/v1/tasks/"

	// taskWaitMost bounds how long a request waits for the end of a task: proxies cut much longer ones.
	taskWaitMost = time.Minute
)

// taskAnswer is what is said of a task that was enqueued, or asked for.
type taskAnswer struct {
	Kind      string          `json:"kind"`
	ID        string          `json:"id"`
	Duplicate bool            `json:"duplicate,omitempty"` // there was one with this id or uniqueness; ID is that one's
	State     task.State      `json:"state,omitempty"`
	Attempt   int             `json:"attempt,omitempty"`
	Due       time.Time       `json:"due,omitzero"`
	Code      string          `json:"code,omitempty"` // of the last error
	Error     string          `json:"error,omitempty"`
	Progress  int             `json:"progress,omitempty"` // per cent
	Note      string          `json:"note,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Base64    []byte          `json:"result_base64,omitempty"` // a result that is not JSON
	Changed   time.Time       `json:"changed,omitzero"`
}

// serveTasks answers requests below tasksPath.
func (in *ingest) serveTasks(w http.ResponseWriter, r *http.Request) *refusal {
	name, id, one := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), tasksPath), "/")
	if !slices.Contains(in.conn.Grant().Enqueues, name) {
		return refuse(http.StatusNotFound, "ingest/no-kind", fmt.Sprintf("this service does not enqueue tasks of kind %q", name), "add the kind to its enqueues in hozo.yaml")
	}
	// With Keep handles wait for the end of tasks; whether it is kept is the handling service's affair.
	kind := task.NewKind[[]byte](name, task.Config{Keep: task.DefaultKeep})
	if !one {
		return in.enqueueTask(w, r, kind)
	}
	id, err := url.PathUnescape(id)
	if err != nil || id == "" {
		return refuse(http.StatusNotFound, "ingest/no-page", "there is nothing at "+r.URL.Path, "name a task: "+tasksPath+name+"/ID")
	}
	h := kind.Find(in.conn, id)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return in.showTask(w, r, h)
	case http.MethodDelete:
		ctx, cancel := context.WithTimeout(r.Context(), storePatience)
		defer cancel()
		if err := h.Cancel(ctx); err != nil {
			return taskRefusal(err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		w.Header().Set("Allow", "GET, DELETE")
		return refuse(http.StatusMethodNotAllowed, "ingest/method", "a task is looked at with GET and cancelled with DELETE, not "+r.Method, "POST new ones to "+tasksPath+name)
	}
}

// enqueueTask stores the body as the arguments of a task.
func (in *ingest) enqueueTask(w http.ResponseWriter, r *http.Request, kind task.Kind[[]byte]) *refusal {
	if r.Method != http.MethodPost {
		return refuse(http.StatusMethodNotAllowed, "ingest/method", "tasks are sent with POST, not "+r.Method, "POST to "+r.URL.Path)
	}
	opts, ref := taskOptions(r)
	if ref != nil {
		return ref
	}
	media, ref := eventType(r)
	if ref != nil {
		return ref
	}
	body, ref := in.bodies.read(r)
	if ref != nil {
		return ref
	}
	defer body.release()
	args := body.data
	if media == "" {
		if args, ref = oneDocument(body.data); ref != nil {
			return ref
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), storePatience)
	defer cancel()
	h, err := kind.Enqueue(ctx, in.conn, args, opts...)
	if err != nil {
		return taskRefusal(err)
	}
	if !h.Duplicate {
		in.conn.Counters().BytesIn.Add(uint64(len(args)))
	}
	w.Header().Set("Location", tasksPath+h.Kind+"/"+url.PathEscape(h.ID))
	web.JSON(w, http.StatusAccepted, taskAnswer{Kind: h.Kind, ID: h.ID, Duplicate: h.Duplicate})
	return nil
}

// taskOptions reads the query. Each word stands once, and an unknown one is a mistake: an option that is not heeded
// would go unseen.
func taskOptions(r *http.Request) ([]task.Option, *refusal) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badOption("the query cannot be read: "+err.Error(), "encode it as a URL needs")
	}
	var opts []task.Option
	id := r.Header.Get(pushKey)
	for name, values := range query {
		value := values[0]
		if len(values) > 1 || value == "" {
			return nil, badOption(fmt.Sprintf("%s is given %d times, or is empty", name, len(values)), "give it once, with a value")
		}
		span := func(option func(time.Duration) task.Option) *refusal {
			d, err := time.ParseDuration(value)
			if err != nil {
				return badOption(fmt.Sprintf("%s: %.40q is no duration", name, value), "write it like 90s or 1h30m")
			}
			opts = append(opts, option(d))
			return nil
		}
		var ref *refusal
		switch name {
		case "id":
			id = value
		case "delay":
			ref = span(task.In)
		case "ttl":
			ref = span(task.TTL)
		case "at":
			at, err := time.Parse(time.RFC3339, value)
			if err != nil {
				return nil, badOption(fmt.Sprintf("at: %.40q is no time of RFC 3339", value), "write it like 2027-01-31T09:30:00Z")
			}
			opts = append(opts, task.At(at))
		case "key":
			opts = append(opts, task.Key(value))
		case "priority":
			p, known := map[string]task.Priority{"high": task.High, "normal": task.Normal, "low": task.Low}[value]
			if !known {
				return nil, badOption(fmt.Sprintf("priority: %.40q is none", value), "write high, normal or low")
			}
			opts = append(opts, task.WithPriority(p))
		case "unique":
			if until := query.Get("unique_for"); until == "" {
				opts = append(opts, task.Unique(value))
			}
		case "unique_for":
			if query.Get("unique") == "" {
				return nil, badOption("unique_for says how long and not what is unique", "add unique=NAME")
			}
			ref = span(func(d time.Duration) task.Option { return task.UniqueFor(query.Get("unique"), d) })
		default:
			ref = badOption(fmt.Sprintf("there is no option %.40q", name), "use id, delay, at, ttl, key, priority, unique and unique_for")
		}
		if ref != nil {
			return nil, ref
		}
	}
	if query.Has("at") && query.Has("delay") {
		return nil, badOption("at and delay both say when the task is to run", "keep one of the two")
	}
	if id != "" {
		opts = append(opts, task.ID(id))
	}
	return opts, nil
}

func badOption(what, fix string) *refusal {
	return refuse(http.StatusBadRequest, "ingest/bad-option", what, fix)
}

// showTask says what is known of a task, with ?wait=30s once it has ended or the time is over.
func (in *ingest) showTask(w http.ResponseWriter, r *http.Request, h task.Handle) *refusal {
	s, err := in.taskStatus(r.Context(), h)
	if wait := r.URL.Query().Get("wait"); wait != "" && err == nil {
		d, bad := time.ParseDuration(wait)
		if bad != nil || d < 0 {
			return badOption(fmt.Sprintf("wait: %.40q is no duration", wait), "write it like 30s")
		}
		waitTask(r.Context(), h, min(d, taskWaitMost))
		s, err = in.taskStatus(r.Context(), h)
	}
	if err != nil {
		return taskRefusal(err)
	}
	a := taskAnswer{
		Kind: h.Kind, ID: h.ID, State: s.State, Attempt: s.Attempt, Due: s.Due, Code: s.Code, Error: s.Error,
		Progress: s.Progress, Note: s.Note, Changed: s.Changed,
	}
	if jsonscan.Valid(s.Result) {
		a.Result = s.Result
	} else {
		a.Base64 = s.Result
	}
	web.JSON(w, http.StatusOK, a)
	return nil
}

func (in *ingest) taskStatus(ctx context.Context, h task.Handle) (task.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return h.Status(ctx)
}

// waitTask waits for the end of a task, at most for d and not when the server is to stop.
func waitTask(ctx context.Context, h task.Handle, d time.Duration) {
	draining := web.Draining(ctx)
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = h.Wait(ctx) // how it has ended is asked for then
	}()
	select {
	case <-draining:
		cancel()
	case <-ended:
	}
	<-ended
}

// taskRefusal turns an error about a task into what the client is told.
func taskRefusal(err error) *refusal {
	status := 0
	switch fault.Code(err) {
	case task.CodeQueueFull:
		ref := &refusal{status: http.StatusServiceUnavailable, retryAfter: spread(5 * time.Second)}
		ref.fault, _ = fault.As(err)
		return ref
	case task.CodeUnknown:
		status = http.StatusNotFound
	case task.CodeEnded:
		status = http.StatusConflict
	case task.CodeBadID, task.CodeBadOption:
		status = http.StatusBadRequest
	default:
		return storeRefusal(err)
	}
	f, _ := fault.As(err)
	return &refusal{status: status, fault: f}
}
