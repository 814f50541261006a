package builtin

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

const jobKind = "web.job"

// jobber answers each task by its own row of answers, the last one from then on, and keeps the headers of every try.
type jobber struct {
	mu      sync.Mutex
	answers map[string][]jobAnswer
	tries   map[string][]http.Header
}

type jobAnswer struct {
	code  int
	body  string
	heads []string
}

func (j *jobber) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	j.mu.Lock()
	defer j.mu.Unlock()
	answers := j.answers[string(body)]
	if len(answers) == 0 {
		answers = []jobAnswer{{code: http.StatusOK}}
	}
	a := answers[min(len(j.tries[string(body)]), len(answers)-1)]
	j.tries[string(body)] = append(j.tries[string(body)], r.Header)
	for i := 0; i < len(a.heads); i += 2 {
		w.Header().Set(a.heads[i], a.heads[i+1])
	}
	w.WriteHeader(a.code)
	_, _ = io.WriteString(w, a.body)
}

func (j *jobber) tried(body string) []http.Header {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tries[body]
}

// pushJobs has url do the tasks of jobKind and returns a connection that may enqueue them.
func pushJobs(t *testing.T, b *testkit.TestBroker, url string, cfg task.Config) *bus.Conn {
	t.Helper()
	conn := connect(t, b, b.Grant(t, wire.Grant{Service: "jobs", Handles: []string{jobKind}}))
	p := newTaskPusher(url, 4, conn)
	t.Cleanup(p.client.CloseIdleConnections)
	run(t, task.NewResultWorker(conn, task.NewResultKind[[]byte, []byte](jobKind, cfg), p.do, task.WorkerConfig{Concurrency: 4}))
	return connect(t, b, b.Grant(t, wire.Grant{Service: "asks", Enqueues: []string{jobKind}}))
}

func outcomeOf(t *testing.T, h task.Handle) task.Status {
	t.Helper()
	s, err := h.Wait(testkit.Context(t))
	if s.State == "" {
		t.Fatal(err)
	}
	return s
}

func TestAnswerOfAnEndpointIsTheOutcomeOfItsTask(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	ok := jobAnswer{code: http.StatusOK, body: `{"ok":true}`}
	j := &jobber{tries: map[string][]http.Header{}, answers: map[string][]jobAnswer{
		`{"n":0}`: {ok},
		`{"n":1}`: {{code: 422, body: "no such thing"}},
		`{"n":2}`: {{code: 500}, {code: 502}, ok},
		`{"n":3}`: {{code: 429, heads: []string{"Retry-After", "1"}}, {code: 503, heads: []string{"Retry-After", "1"}}, ok},
		`{"n":4}`: {{code: 500, heads: []string{"Hozo-Outcome", "dead"}}},
		`{"n":5}`: {{code: 200, heads: []string{"Hozo-Outcome", "later"}}, {code: 200, body: "text"}},
		`{"n":6}`: {{code: 503}},
		`{"n":7}`: {{code: 302, heads: []string{"Location", "/elsewhere"}}},
		`{"n":8}`: {{code: 200, heads: []string{"Hozo-Outcome", "perhaps"}}},
	}}
	server := httptest.NewServer(j)
	t.Cleanup(server.Close)
	kind := task.NewKind[[]byte](jobKind, task.Config{Keep: time.Hour})
	conn := pushJobs(t, b, server.URL, task.Config{Attempts: 3, Backoff: time.Millisecond})
	var handles []task.Handle
	for n := range len(j.answers) {
		h, err := kind.Enqueue(t.Context(), conn, fmt.Appendf(nil, `{"n":%d}`, n), task.Key("shop"))
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, h)
	}
	for n, want := range []struct {
		state  task.State
		tries  int
		code   string
		result string
	}{
		{task.Done, 1, "", `{"ok":true}`},
		{task.Dead, 1, "push/422", ""},
		{task.Done, 3, "", `{"ok":true}`},
		{task.Done, 3, "", `{"ok":true}`},
		{task.Dead, 1, "push/500", ""},
		{task.Done, 2, "", "text"},
		{task.Dead, 3, "push/503", ""},
		{task.Dead, 1, "push/302", ""},
		{task.Dead, 3, "push/bad-outcome", ""},
	} {
		s, tries := outcomeOf(t, handles[n]), j.tried(fmt.Sprintf(`{"n":%d}`, n))
		if s.State != want.state || len(tries) != want.tries || s.Code != want.code || string(s.Result) != want.result {
			t.Errorf("task %d is %s after %d tries with code %q (%s) and result %q, want %+v", n, s.State, len(tries), s.Code, s.Error, s.Result, want)
		}
	}
	if tries := j.tried(`{"n":3}`); tries[2].Get("Hozo-Attempt") != "1" {
		t.Errorf("being put aside has spent attempts: the third request is attempt %s", tries[2].Get("Hozo-Attempt"))
	}
	h := j.tried(`{"n":2}`)[1]
	deadline, err := time.Parse(time.RFC3339, h.Get("Hozo-Deadline"))
	if err != nil || time.Until(deadline) > task.DefaultTimeout {
		t.Errorf("the deadline is %q (%v)", h.Get("Hozo-Deadline"), err)
	}
	if h.Get("Hozo-Task") != handles[2].ID || h.Get("Idempotency-Key") != jobKind+":"+handles[2].ID || h.Get("Hozo-Kind") != jobKind ||
		h.Get("Hozo-Attempt") != "2" || h.Get("Hozo-Key") != "shop" || h.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", h)
	}
}

// hanging keeps every request open until its client goes.
type hanging struct{ begun, closed chan struct{} }

func newHanging() *hanging { return &hanging{make(chan struct{}, 8), make(chan struct{}, 8)} }

func (h *hanging) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.ReadAll(r.Body) // else the server does not notice that the client goes
	h.begun <- struct{}{}
	<-r.Context().Done()
	h.closed <- struct{}{}
}

func TestCancelledTaskClosesItsRequest(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	hang := newHanging()
	server := httptest.NewServer(hang)
	t.Cleanup(server.Close)
	conn := pushJobs(t, b, server.URL, task.Config{})
	h, err := task.NewKind[[]byte](jobKind, task.Config{Keep: time.Hour}).Enqueue(t.Context(), conn, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Wait(t, hang.begun)
	if err := h.Cancel(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	testkit.Wait(t, hang.closed)
	if s := outcomeOf(t, h); s.State != task.Cancelled {
		t.Errorf("the task is %s", s.State)
	}
}

func TestTaskWhoseTimeIsOverClosesItsRequest(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	hang := newHanging()
	server := httptest.NewServer(hang)
	t.Cleanup(server.Close)
	conn := pushJobs(t, b, server.URL, task.Config{Attempts: 1, Timeout: 300 * time.Millisecond})
	h, err := task.NewKind[[]byte](jobKind, task.Config{Keep: time.Hour}).Enqueue(t.Context(), conn, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Wait(t, hang.closed)
	if s := outcomeOf(t, h); s.State != task.Dead || s.Code != task.CodeTimeout {
		t.Errorf("the task is %s with %s: %s", s.State, s.Code, s.Error)
	}
}
