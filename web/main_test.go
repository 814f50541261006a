package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/web"
)

func TestMain(m *testing.M) { testkit.Main(m, testkit.Child("server", serverChild)) }

// serverChild serves its process id on the inherited socket until SIGTERM.
func serverChild() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server, err := web.New(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, os.Getpid())
	}), web.Config{Name: os.Getenv("SOCKET")})
	if err == nil {
		err = server.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// running is a Server of a test.
type running struct {
	*web.Server
	url    string
	addr   string
	stop   func()       // asks it to stop and does not wait
	ended  chan error   // its one result
	client *http.Client // with connections of its own
}

// serve runs handler on a free port of loopback until the end of t.
func serve(t *testing.T, handler http.Handler, cfg web.Config) *running {
	t.Helper()
	if cfg.Listener == nil {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listener = ln
	}
	server, err := web.New(handler, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	transport := &http.Transport{}
	r := &running{
		Server: server, addr: server.Addr().String(), stop: cancel,
		ended: make(chan error, 1), client: &http.Client{Transport: transport},
	}
	r.url = "http://" + r.addr
	var wg sync.WaitGroup
	wg.Go(func() { r.ended <- server.Run(ctx) })
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		wg.Wait()
	})
	testkit.Wait(t, server.Ready())
	return r
}

func (r *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := r.client.Get(r.url + path)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, resp)
}

func read(t *testing.T, resp *http.Response) (int, string) {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// raw is a connection on which a test speaks HTTP itself.
type raw struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	return &raw{conn, bufio.NewReader(conn)}
}

func (c *raw) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
}

func (c *raw) response(t *testing.T) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, resp)
}

// expectClosed fails unless the server closes the connection without another answer.
func (c *raw) expectClosed(t *testing.T) {
	t.Helper()
	rest, err := io.ReadAll(c.r)
	if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
		t.Fatal("the server kept the connection open")
	}
	if len(rest) > 0 {
		t.Fatalf("instead of closing the server said %q", rest)
	}
}

// faultOf reads the code of a fault's JSON.
func faultOf(t *testing.T, body string) string {
	t.Helper()
	var answer struct {
		Error struct{ Code, What, Where, Fix string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%q is no fault: %v", body, err)
	}
	return answer.Error.Code
}
