package node_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// serveHTTP is the main of a service that serves HTTP.
func serveHTTP() {
	hozo.Main(hozo.HTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%d", os.Getpid())
	})))
}

// load asks a server from many connections and counts each failure. It retries nothing and hides nothing: a kept
// connection that the server closed without saying so in the answer before is a failure.
type load struct {
	address  string
	requests atomic.Uint64
	failed   atomic.Uint64
	mu       sync.Mutex
	first    error // failure
	served   map[string]bool
	wg       sync.WaitGroup
	stop     context.CancelFunc
}

// start begins with kept connections, each of which asks again after pause, and as many callers that connect anew.
func startLoad(t *testing.T, address string, callers int, rate float64) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{address: address, stop: cancel, served: map[string]bool{}}
	pause := time.Duration(float64(2*callers) / rate * float64(time.Second))
	for range callers {
		l.wg.Go(func() { l.call(ctx, pause, true) })
		l.wg.Go(func() { l.call(ctx, pause, false) })
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

func (l *load) call(ctx context.Context, pause time.Duration, keep bool) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var c *caller
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if c != nil {
				_ = c.conn.Close() // everything on it was answered
			}
			return
		}
		var err error
		if c == nil {
			c, err = connect(l.address)
		}
		var pid string
		closes := true
		if err == nil {
			pid, closes, err = c.ask(keep)
		}
		l.requests.Add(1)
		l.note(pid, err)
		if c != nil && (closes || !keep || err != nil) {
			_ = c.conn.Close() // as announced
			c = nil
		}
	}
}

func (l *load) note(pid string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed.Add(1)
		if l.first == nil {
			l.first = err
		}
		return
	}
	l.served[pid] = true
}

type caller struct {
	conn net.Conn
	in   *bufio.Reader
}

func connect(address string) (*caller, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &caller{conn, bufio.NewReader(conn)}, nil
}

func (c *caller) ask(keep bool) (body string, closes bool, err error) {
	head := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	if !keep {
		head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	}
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", true, err
	}
	if _, err := c.conn.Write([]byte(head)); err != nil {
		return "", true, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", true, err
	}
	defer resp.Body.Close()
	text := make([]byte, 32)
	n, err := resp.Body.Read(text)
	if n == 0 || resp.StatusCode != http.StatusOK {
		return "", true, errors.Join(fmt.Errorf("status %s, %d bytes", resp.Status, n), err)
	}
	return string(text[:n]), resp.Close, nil
}

// awaitRequests waits until as many more requests have been answered.
func (l *load) awaitRequests(t *testing.T, more uint64) {
	t.Helper()
	want := l.requests.Load() + more
	testkit.Eventually(t, func() bool { return l.requests.Load() >= want }, "requests to be answered")
}

// HOZO_TEST_LOAD=5000 asks for that many requests a second and twenty restarts, on a machine that has nothing else to do.
func intensity() (rate float64, callers, restarts int) {
	if n, err := strconv.Atoi(os.Getenv("HOZO_TEST_LOAD")); err == nil {
		return float64(n), 100, 20
	}
	return 400, 16, 3
}

func TestRestartsUnderLoadLoseNoRequest(t *testing.T) {
	t.Parallel()
	rate, callers, restarts := intensity()
	for name, lines := range map[string]string{
		"one by notify":  "scale: 1, health: notify",
		"one by http":    "scale: 1, health: /readyz",
		"four by notify": "scale: 4, health: notify",
		// The one process ends before the next one starts: meanwhile callers wait in the queue of the keeper's socket.
		"one by http, no surge": "scale: 1, health: /readyz, rolling: { surge: 0 }",
		"two by http, no surge": "scale: 2, health: /readyz, rolling: { surge: 0, max_unavailable: 1 }",
	} {
		run := func(t *testing.T) {
			p := up(t, "  web: { run: \"%[1]s web\", listen: { http: 0 }, "+lines+" }\n")
			before := pids(p.status(t))
			l := startLoad(t, service(p.status(t), "web").Listen["http"], callers, rate)
			l.awaitRequests(t, 50)
			began, at := time.Now(), l.requests.Load()
			for range restarts {
				if err := p.client.Restart(testkit.Context(t), "web"); err != nil {
					t.Fatal(err)
				}
				l.awaitRequests(t, 20)
			}
			t.Logf("%d restarts in %s, %.0f requests a second", restarts, time.Since(began).Round(time.Millisecond), float64(l.requests.Load()-at)/time.Since(began).Seconds())
			l.end()
			if n := l.failed.Load(); n > 0 {
				t.Errorf("%d of %d requests failed, the first: %v", n, l.requests.Load(), l.first)
			}
			after := pids(p.status(t))
			for name, pid := range before {
				if after[name] == pid || after[name] == 0 {
					t.Errorf("%s was not restarted", name)
				}
			}
			if len(l.served) < len(before)*restarts/2 {
				t.Errorf("%d requests were served by %d processes only", l.requests.Load(), len(l.served))
			}
		}
		if restarts > 3 { // one after the other
			t.Run(name, run)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

func TestBadVersionUnderLoadIsGivenUpAndSaidSo(t *testing.T) {
	t.Parallel()
	const lines = "  web: { run: \"%[1]s %[2]s\", listen: { http: 0 }, scale: 2, health: notify, rolling: { timeout: 500ms } }\n"
	p := up(t, lines, "web")
	before := pids(p.status(t))
	l := startLoad(t, service(p.status(t), "web").Listen["http"], 4, 100)
	for _, version := range []string{"nosuchcommand", "idle"} { // crashes; never gets ready
		if _, err := p.rewrite(t, lines, version); err != nil {
			t.Fatal(err)
		}
		s := p.await(t, "the change to be given up", func(s status.Snapshot) bool {
			return service(s, "web").Instances[0].Change == status.ChangeFailed
		})
		told := false
		for _, problem := range s.Problems {
			told = told || problem.Code == "instance/change-failed" && strings.Contains(problem.Title, "web.1") && problem.Fix != ""
		}
		if !told {
			t.Errorf("the problem is not shown: %+v", s.Problems)
		}
		if err := p.client.Restart(testkit.Context(t), "web"); fault.Code(err) != "supervisor/not-replaced" || fault.ExitCode(err) != 1 {
			t.Errorf("restart says %v", err)
		}
		if now := pids(p.status(t)); now["web.1"] != before["web.1"] || now["web.2"] != before["web.2"] {
			t.Errorf("before %v, now %v", before, now)
		}
	}
	l.awaitRequests(t, 20)
	l.end()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed, the first: %v", n, l.requests.Load(), l.first)
	}
}
