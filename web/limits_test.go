package web_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/web"
)

// echo answers with the number of bytes of the body, or with the error of reading it.
func echo(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		web.Fault(w, status, err)
		return
	}
	fmt.Fprint(w, n)
}

func TestSlowHeaderIsCut(t *testing.T) {
	t.Parallel()
	s := serve(t, http.HandlerFunc(echo), web.Config{ReadHeaderTimeout: 100 * time.Millisecond})
	c := dial(t, s.addr)
	c.send(t, "GET / HTTP/1.1\nHost: x\nX-Slow")
	if _, err := io.Copy(io.Discard, c.r); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stayed open")
	}
}

func TestBodyThatStandsStillIsCut(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	s := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		failed <- err
	}), web.Config{ReadStall: 100 * time.Millisecond})
	c := dial(t, s.addr)
	c.send(t, "POST / HTTP/1.1\nHost: x\nContent-Length: 10\n\nhalf")
	if err := testkit.Wait(t, failed); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading the body: %v", err)
	}
	if _, err := io.Copy(io.Discard, c.r); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stayed open")
	}
}

func TestUnreadBodyThatStandsStillIsCut(t *testing.T) {
	t.Parallel()
	s := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), web.Config{ReadStall: 100 * time.Millisecond})
	c := dial(t, s.addr)
	c.send(t, "POST / HTTP/1.1\nHost: x\nContent-Length: 10\n\nhalf")
	if _, err := io.Copy(io.Discard, c.r); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stayed open")
	}
}

func TestSlowBodyThatProceedsIsNotCut(t *testing.T) {
	t.Parallel()
	const stall = time.Second
	s := serve(t, http.HandlerFunc(echo), web.Config{ReadStall: stall})
	c := dial(t, s.addr)
	c.send(t, "POST / HTTP/1.1\nHost: x\nContent-Length: 6\n\n")
	tick := time.NewTicker(stall / 4) // a client that sends a byte now and then, 1.5 times the stall in all
	defer tick.Stop()
	for range 6 {
		<-tick.C
		c.send(t, "x")
	}
	if status, body := c.response(t); status != 200 || body != "6" {
		t.Errorf("slow body got %d %q", status, body)
	}
}

func TestHandlerMayThinkLongerThanTheStall(t *testing.T) {
	t.Parallel()
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		thought := time.NewTimer(300 * time.Millisecond)
		select {
		case <-thought.C:
			fmt.Fprint(w, "thought")
		case <-r.Context().Done():
			t.Error("the request was cancelled")
		}
	}), web.Config{ReadStall: 50 * time.Millisecond, WriteStall: 50 * time.Millisecond})
	for range 2 { // the second on the same connection, whose deadlines are past
		resp, err := s.client.Post(s.url, "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		if status, body := read(t, resp); status != 200 || body != "thought" {
			t.Errorf("got %d %q", status, body)
		}
	}
}

func TestAnswerThatNobodyReadsIsCut(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 64<<20)) // more than any socket buffer takes
		failed <- err
	}), web.Config{WriteStall: 100 * time.Millisecond})
	c := dial(t, s.addr)
	c.send(t, "GET / HTTP/1.1\nHost: x\n\n")
	if err := testkit.Wait(t, failed); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing the answer: %v", err)
	}
}

func TestFileIsServedWhole(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 20000) // several pieces
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }), web.Config{})
	if status, body := s.get(t, "/x"); status != 200 || body != string(content) {
		t.Errorf("got %d and %d bytes of %d", status, len(body), len(content))
	}
}

func TestBodyOverTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, http.HandlerFunc(echo), web.Config{MaxBody: 1000})
	tests := map[string]struct {
		body   io.Reader
		status int
		code   string
	}{
		"within":            {strings.NewReader(strings.Repeat("x", 1000)), 200, ""},
		"announced":         {strings.NewReader(strings.Repeat("x", 1001)), 413, "web/body-too-large"},
		"chunked unlimited": {io.MultiReader(strings.NewReader(strings.Repeat("x", 1001))), 413, "http/request-entity-too-large"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			resp, err := s.client.Post(s.url, "text/plain", test.body)
			if err != nil {
				t.Fatal(err)
			}
			status, body := read(t, resp)
			if status != test.status || (test.code != "" && faultOf(t, body) != test.code) {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
}

func TestHeaderOverTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, http.HandlerFunc(echo), web.Config{MaxHeaderBytes: 4096})
	r, err := http.NewRequest(http.MethodGet, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Large", strings.Repeat("x", 16<<10))
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := read(t, resp); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", status)
	}
}

func TestConnectionsBeyondTheLimitWaitForAPlace(t *testing.T) {
	t.Parallel()
	entered := make(chan string)
	release := make(chan struct{})
	s := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- r.URL.Path
		<-release
	}), web.Config{MaxConns: 2})
	conns := make([]*raw, 3)
	for i := range conns {
		conns[i] = dial(t, s.addr)
		conns[i].send(t, fmt.Sprintf("GET /%d HTTP/1.1\nHost: x\nConnection: close\n\n", i))
	}
	first := map[string]bool{testkit.Wait(t, entered): true, testkit.Wait(t, entered): true}
	if !first["/0"] || !first["/1"] {
		t.Errorf("the first requests were %v", first)
	}
	release <- struct{}{} // one ends, its connection closes, and only then is the third accepted
	if path := testkit.Wait(t, entered); path != "/2" {
		t.Errorf("the third request was %s", path)
	}
	close(release)
	for _, c := range conns {
		if status, _ := c.response(t); status != 200 {
			t.Errorf("got %d", status)
		}
	}
}

func TestPanicIsAnsweredLoggedOnceAndSurvived(t *testing.T) {
	t.Parallel()
	var log lines
	mux := http.NewServeMux()
	mux.HandleFunc("/early", func(http.ResponseWriter, *http.Request) { panic("secret") })
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half an answer"))
		_ = http.NewResponseController(w).Flush() // else the client tries again by itself
		panic("late")
	})
	mux.HandleFunc("/fine", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") })
	s := serve(t, mux, web.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	status, body := s.get(t, "/early")
	if status != 500 || faultOf(t, body) != "web/panic" || strings.Contains(body, "secret") {
		t.Errorf("/early = %d %s", status, body)
	}
	resp, err := s.client.Get(s.url + "/late")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looked whole")
	}
	if _, body := s.get(t, "/fine"); body != "fine" {
		t.Errorf("/fine = %q", body)
	}
	if n := strings.Count(log.String(), "panicked"); n != 2 {
		t.Errorf("two panics are logged %d times:\n%s", n, log.String())
	}
}

func TestServeErrorIsReturned(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, http.NotFoundHandler(), web.Config{Listener: ln})
	ln.Close() // somebody else's mistake
	if err := testkit.Wait(t, s.ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run = %v", err)
	}
}
