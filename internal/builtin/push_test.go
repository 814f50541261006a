package builtin

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// endpoint answers each body by its own row of codes, the last one from then on, and keeps what came.
type endpoint struct {
	mu      sync.Mutex
	codes   map[string][]int
	tries   map[string]int
	headers map[string]http.Header // of the first try
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	defer e.mu.Unlock()
	codes := e.codes[string(body)]
	n := e.tries[string(body)]
	e.tries[string(body)]++
	if n == 0 {
		e.headers[string(body)] = r.Header
	}
	code := http.StatusNoContent
	if len(codes) > 0 {
		code = codes[min(n, len(codes)-1)]
	}
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if code == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(code)
}

func (e *endpoint) tried(body string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tries[body]
}

// push runs a pusher to url over the events of rawStream.
func push(t *testing.T, b *testkit.TestBroker, url string) *bus.Conn {
	t.Helper()
	conn := zmqGrant(t, b, wire.Grant{Consumes: []wire.Source{{Stream: rawStream}}})
	p := newPusher(url, 5*time.Second, 4)
	cfg := p.stageConfig(manifest.Target{Attempts: 3}, 4)
	cfg.Backoff = time.Millisecond
	stage, err := bus.NewStage(conn, bus.NewTopic[[]byte](rawStream), p.handle, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.CloseIdleConnections)
	run(t, stage)
	return conn
}

func TestStatusCodeIsTheOutcome(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	e := &endpoint{tries: map[string]int{}, headers: map[string]http.Header{}, codes: map[string][]int{
		`{"n":1}`: {503, 500, 200}, `{"n":2}`: {422}, `{"n":3}`: {500}, `{"n":4}`: {429, 202}, `{"n":5}`: {302},
	}}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	conn := push(t, b, server.URL+"/events")
	publishJSON(t, b, rawStream, rawStream, 6)
	testkit.Eventually(t, func() bool { return unacknowledged(t, b, rawStream) == 0 }, "everything has its outcome")
	for body, want := range map[string]int{`{"n":0}`: 1, `{"n":1}`: 3, `{"n":2}`: 1, `{"n":3}`: 3, `{"n":4}`: 2, `{"n":5}`: 1} {
		if got := e.tried(body); got != want {
			t.Errorf("%s was sent %d times, want %d", body, got, want)
		}
	}
	if n := conn.Counters().Parked.Load(); n != 3 {
		t.Errorf("%d events are parked, want those of 422, 500 and 302", n)
	}
	h := e.headers[`{"n":0}`]
	if id, err := wire.ParseEventID(h.Get("Hozo-Event")); err != nil || id.Stream != rawStream || h.Get("Idempotency-Key") != id.String() {
		t.Errorf("the event's id is %q (%v)", h.Get("Hozo-Event"), err)
	}
	if h.Get("Content-Type") != "application/json" || h.Get("Hozo-Subject") != rawStream || h.Get("Hozo-Attempt") != "1" {
		t.Errorf("headers %v", h)
	}
}

func TestPushGoesToAUnixSocketAndWaitsForItsProgram(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	socket := filepath.Join(testkit.TempDir(t), "app.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{tries: map[string]int{}, headers: map[string]http.Header{}}
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}}
	push(t, b, "unix:"+socket+":/in")
	publishJSON(t, b, rawStream, rawStream, 2) // they wait in the socket's queue
	server.Start()
	t.Cleanup(server.Close)
	testkit.Eventually(t, func() bool { return unacknowledged(t, b, rawStream) == 0 }, "both are delivered")
	if e.tried(`{"n":0}`) != 1 || e.tried(`{"n":1}`) != 1 {
		t.Errorf("tries %v", e.tries)
	}
}

func TestRetryAfterHasTwoForms(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "9999": 9999 * time.Second, "-1": 0, "soon": 0,
		now.Add(5 * time.Second).Format(http.TimeFormat): 5 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q gives %v, want %v", header, got, want)
		}
	}
}
