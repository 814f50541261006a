package web_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/web"
)

func TestRequestInFlightFinishesWhileNewConnectionsAreRefused(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-web.Draining(r.Context())
		<-release
		if r.Context().Err() != nil {
			t.Error("the drain cancelled a request in flight")
		}
		fmt.Fprint(w, "done")
	}), web.Config{})
	idle := dial(t, s.addr)
	idle.send(t, "GET /healthz HTTP/1.1\nHost: x\n\n")
	idle.response(t)
	busy := dial(t, s.addr)
	busy.send(t, "GET / HTTP/1.1\nHost: x\n\n")
	testkit.Wait(t, entered)

	s.stop()
	idle.expectClosed(t) // after the listener is closed
	if conn, err := net.Dial("tcp", s.addr); err == nil {
		conn.Close()
		t.Error("a new connection was accepted while draining")
	}
	close(release)
	resp, err := http.ReadResponse(busy.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !resp.Close {
		t.Error("the connection would be kept alive")
	}
	if status, body := read(t, resp); status != 200 || body != "done" {
		t.Errorf("request in flight got %d %q", status, body)
	}
	if err := testkit.Wait(t, s.ended); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestHTTP2RequestInFlightFinishesOnDrain(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("request came by %s", r.Proto)
		}
		close(entered)
		<-web.Draining(r.Context())
		fmt.Fprint(w, "done")
	}), web.Config{})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		testkit.Wait(t, entered)
		s.stop()
	})
	resp, err := (&http.Client{Transport: transport}).Get(s.url)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := read(t, resp); status != 200 || body != "done" {
		t.Errorf("request in flight got %d %q", status, body)
	}
	if err := testkit.Wait(t, s.ended); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRequestOnItsWayWhenTheDrainBeginsIsAnswered(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	var late *raw
	s := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-web.Draining(r.Context())
		late.send(t, "\n") // completes its header
		<-release
	}), web.Config{})
	if status, body := s.get(t, "/readyz"); status != 200 || !strings.Contains(body, `"ready":true`) {
		t.Fatalf("before the stop: %d %s", status, body)
	}
	late = dial(t, s.addr)
	late.send(t, "GET /readyz HTTP/1.1\nHost: x\n")
	busy := dial(t, s.addr)
	busy.send(t, "GET / HTTP/1.1\nHost: x\n\n")
	testkit.Wait(t, entered)
	s.stop()
	status, body := late.response(t)
	if status != http.StatusServiceUnavailable || faultOf(t, body) != "web/draining" {
		t.Errorf("while draining: %d %s", status, body)
	}
	late.expectClosed(t)
	close(release)
	testkit.Wait(t, s.ended)
}

// lateListener hands out each connection only once it is being closed, as a process that loses the processor in Accept
// may do.
type lateListener struct {
	net.Listener
	accepted chan struct{}
	closed   chan struct{}
	once     sync.Once
}

func (l *lateListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- struct{}{}
		<-l.closed
	}
	return conn, err
}

func (l *lateListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func TestConnectionAcceptedWhenTheDrainBeginsIsServed(t *testing.T) {
	t.Parallel()
	for range 20 { // which goroutine runs first is up to the scheduler
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln := &lateListener{Listener: inner, accepted: make(chan struct{}), closed: make(chan struct{})}
		s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") }), web.Config{Listener: ln})
		c := dial(t, s.addr)
		c.send(t, "GET / HTTP/1.1\nHost: x\n\n")
		testkit.Wait(t, ln.accepted)
		s.stop()
		if status, body := c.response(t); status != http.StatusOK || body != "served" {
			t.Errorf("got %d %q", status, body)
		}
		testkit.Wait(t, s.ended)
	}
}

func TestDrainCutsWhatOutlivesTheGrace(t *testing.T) {
	t.Parallel()
	var log lines
	entered, cut := make(chan struct{}), make(chan error, 1)
	s := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		cut <- context.Cause(r.Context())
	}), web.Config{DrainGrace: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	c := dial(t, s.addr)
	c.send(t, "GET / HTTP/1.1\nHost: x\n\n")
	testkit.Wait(t, entered)
	s.stop()
	if err := testkit.Wait(t, s.ended); err != nil {
		t.Errorf("Run: %v", err)
	}
	if cause := testkit.Wait(t, cut); !strings.Contains(cause.Error(), "stopped") {
		t.Errorf("cause of the cut: %v", cause)
	}
	c.expectClosed(t)
	if got := log.String(); !strings.Contains(got, "requests were cut") {
		t.Errorf("the log does not tell of the cut: %q", got)
	}
}

func TestDrainWaitsForHijackedConnections(t *testing.T) {
	t.Parallel()
	hijacked := make(chan struct{})
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		close(hijacked)
		<-web.Draining(r.Context())
		_, _ = rw.WriteString("goodbye")
		_ = rw.Flush()
	}), web.Config{})
	c := dial(t, s.addr)
	c.send(t, "GET / HTTP/1.1\nHost: x\n\n")
	testkit.Wait(t, hijacked)
	s.stop()
	if err := testkit.Wait(t, s.ended); err != nil {
		t.Errorf("Run: %v", err)
	}
	if rest, err := io.ReadAll(c.r); err != nil || string(rest) != "goodbye" {
		t.Errorf("the hijacked connection got %q, %v", rest, err)
	}
}

func TestReadyzAsksTheService(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "mine") })
	s := serve(t, mux, web.Config{Ready: func() error {
		return &fault.Error{Code: "db/away", What: "the database is away", Fix: "start it"}
	}})
	if status, body := s.get(t, "/readyz"); status != http.StatusServiceUnavailable || faultOf(t, body) != "db/away" {
		t.Errorf("/readyz = %d %s", status, body)
	}
	if status, body := s.get(t, "/healthz"); status != http.StatusOK || body != "{\"alive\":true}\n" {
		t.Errorf("/healthz = %d %s", status, body)
	}
	if _, body := s.get(t, "/other"); body != "mine" {
		t.Errorf("/other = %q", body)
	}
}

func TestHandlersOwnHealthPagesWin(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "mine") })
	s := serve(t, mux, web.Config{})
	if _, body := s.get(t, "/healthz"); body != "mine" {
		t.Errorf("/healthz = %q", body)
	}
	if _, body := s.get(t, "/readyz"); body != "{\"ready\":true}\n" {
		t.Errorf("/readyz = %q", body)
	}
}

func TestServerSurvivesStress(t *testing.T) {
	t.Parallel()
	testkit.Stress(t, func() lifecycle.Runner {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
		}
		s, err := web.New(http.NotFoundHandler(), web.Config{Listener: ln})
		if err != nil {
			t.Error(err)
		}
		return s
	})
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
