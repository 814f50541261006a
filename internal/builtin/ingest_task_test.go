package builtin

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

type taskReply struct {
	status   int
	location string
	taskAnswer
	Problem struct{ Code, What, Fix string } `json:"-"`
}

// askTasks sends a request to an ingest service; heads are names and values of headers.
func askTasks(t *testing.T, method, url, body string, heads ...string) taskReply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(heads); i += 2 {
		req.Header.Set(heads[i], heads[i+1])
	}
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := taskReply{status: resp.StatusCode, location: resp.Header.Get("Location")}
	switch {
	case len(data) == 0:
	case resp.StatusCode >= 400:
		var refused struct {
			Error struct{ Code, What, Fix string } `json:"error"`
		}
		if err := json.Unmarshal(data, &refused); err != nil || refused.Error.Code == "" || refused.Error.Fix == "" {
			t.Fatalf("answer %d %q: %v", resp.StatusCode, data, err)
		}
		a.Problem = refused.Error
	default:
		if err := json.Unmarshal(data, &a.taskAnswer); err != nil {
			t.Fatalf("answer %d %q: %v", resp.StatusCode, data, err)
		}
	}
	return a
}

// taskDoor is an ingest service that enqueues jobKind and nothing else.
func taskDoor(t *testing.T, b *testkit.TestBroker) string {
	t.Helper()
	g := b.Grant(t, wire.Grant{Service: "door", Enqueues: []string{jobKind}})
	return serveGrant(t, b, g, manifest.Ingest{}).url + "/v1/tasks/"
}

func TestTaskIsEnqueuedDoneAndAskedForByHTTP(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	j := &jobber{tries: map[string][]http.Header{}, answers: map[string][]jobAnswer{
		`{"n":1}`: {{code: 200, body: `{"sum":3}`}}, `bytes`: {{code: 200, body: "\xff\x00"}},
	}}
	server := httptest.NewServer(j)
	t.Cleanup(server.Close)
	pushJobs(t, b, server.URL, task.Config{})
	door := taskDoor(t, b)
	a := askTasks(t, http.MethodPost, door+jobKind+"?priority=high&key=shop&ttl=1h", "{\"n\":\n1}", "Idempotency-Key", "order/1")
	if a.status != http.StatusAccepted || a.Kind != jobKind || a.ID != "order/1" || a.Duplicate || a.location != "/v1/tasks/web.job/order%2F1" {
		t.Fatalf("the answer is %+v", a)
	}
	got := askTasks(t, http.MethodGet, strings.TrimSuffix(door, "/v1/tasks/")+a.location+"?wait=30s", "")
	if got.status != http.StatusOK || got.State != task.Done || string(got.Result) != `{"sum":3}` {
		t.Fatalf("the task is %+v", got)
	}
	if again := askTasks(t, http.MethodPost, door+jobKind, `{"n":1}`, "Idempotency-Key", "order/1"); !again.Duplicate || again.ID != a.ID {
		t.Errorf("the same key again gives %+v", again)
	}
	if n := len(j.tried(`{"n":1}`)); n != 1 {
		t.Errorf("the task was done %d times", n)
	}
	raw := askTasks(t, http.MethodPost, door+jobKind, "bytes", "Content-Type", "application/octet-stream")
	if got := askTasks(t, http.MethodGet, door+jobKind+"/"+raw.ID+"?wait=30s", ""); string(got.Base64) != "\xff\x00" || got.Result != nil {
		t.Errorf("a result of bytes is %+v", got)
	}
}

func TestScheduledTaskIsCancelledByHTTP(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	door := taskDoor(t, b)
	a := askTasks(t, http.MethodPost, door+jobKind+"?delay=1h&unique=one", `{}`)
	if other := askTasks(t, http.MethodPost, door+jobKind+"?unique=one", `{}`); !other.Duplicate || other.ID != a.ID {
		t.Errorf("a second one of what is unique gives %+v, want task %s", other, a.ID)
	}
	got := askTasks(t, http.MethodGet, door+jobKind+"/"+a.ID, "")
	if got.State != task.Scheduled || time.Until(got.Due) < 30*time.Minute {
		t.Errorf("the task is %+v", got)
	}
	if got := askTasks(t, http.MethodDelete, door+jobKind+"/"+a.ID, ""); got.status != http.StatusNoContent {
		t.Errorf("cancelling gives %+v", got)
	}
	if got := askTasks(t, http.MethodGet, door+jobKind+"/"+a.ID+"?wait=1m", ""); got.State != task.Cancelled {
		t.Errorf("then it is %+v", got)
	}
	if got := askTasks(t, http.MethodDelete, door+jobKind+"/none", ""); got.status != http.StatusNotFound || got.Problem.Code != task.CodeUnknown {
		t.Errorf("cancelling what is not there gives %+v", got)
	}
}

func TestBadTasksAreRefusedWithReasons(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	door := taskDoor(t, b)
	for _, c := range []struct {
		method, path, body string
		heads              []string
		status             int
		code               string
	}{
		{http.MethodPost, "web.other", `{}`, nil, http.StatusNotFound, "ingest/no-kind"},
		{http.MethodGet, jobKind, "", nil, http.StatusMethodNotAllowed, "ingest/method"},
		{http.MethodPut, jobKind + "/x", "{}", nil, http.StatusMethodNotAllowed, "ingest/method"},
		{http.MethodPost, jobKind, `{"n":`, nil, http.StatusBadRequest, "ingest/invalid-json"},
		{http.MethodPost, jobKind, `a=1`, []string{"Content-Type", "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType, "ingest/content-type"},
		{http.MethodPost, jobKind + "?delay=soon", `{}`, nil, http.StatusBadRequest, "ingest/bad-option"},
		{http.MethodPost, jobKind + "?delay=-1s", `{}`, nil, http.StatusBadRequest, task.CodeBadOption},
		{http.MethodPost, jobKind + "?dealy=1s", `{}`, nil, http.StatusBadRequest, "ingest/bad-option"},
		{http.MethodPost, jobKind + "?delay=1s&delay=2s", `{}`, nil, http.StatusBadRequest, "ingest/bad-option"},
		{http.MethodPost, jobKind + "?delay=1s&at=2027-01-01T00:00:00Z", `{}`, nil, http.StatusBadRequest, "ingest/bad-option"},
		{http.MethodPost, jobKind + "?priority=urgent", `{}`, nil, http.StatusBadRequest, "ingest/bad-option"},
		{http.MethodPost, jobKind + "?unique_for=1h", `{}`, nil, http.StatusBadRequest, "ingest/bad-option"},
		{http.MethodPost, jobKind + "?unique=x&unique_for=1ms", `{}`, nil, http.StatusBadRequest, task.CodeBadOption},
		{http.MethodPost, jobKind, `{}`, []string{"Idempotency-Key", "a b"}, http.StatusBadRequest, task.CodeBadID},
		{http.MethodGet, jobKind + "/x?wait=long", "", nil, http.StatusNotFound, task.CodeUnknown},
	} {
		if a := askTasks(t, c.method, door+c.path, c.body, c.heads...); a.status != c.status || a.Problem.Code != c.code {
			t.Errorf("%s %s %s gives %d %+v, want %d %s", c.method, c.path, c.body, a.status, a.Problem, c.status, c.code)
		}
	}
}
