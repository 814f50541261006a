package hozo_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/sdnotify"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/web"
	"github.com/hozo-dev/hozo/wire"
)

func TestMain(m *testing.M) {
	testkit.Main(m,
		testkit.Child("http", func() { hozo.Main(hozo.HTTP(http.HandlerFunc(hello))) }),
		testkit.Child("isolated", isolated),
		testkit.Child("nothing", func() { hozo.Main() }),
		testkit.Child("stage", func() {
			hozo.Main(hozo.Stage(raw, func(context.Context, bus.Event[order], *bus.Out) error { return nil }))
		}),
		testkit.Child("stubborn", func() {
			hozo.Main(hozo.Func("stubborn", func(context.Context, *hozo.Service) error {
				fmt.Println("up")
				select {}
			}))
		}),
	)
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

type order struct{ Item string }

var (
	raw     = bus.NewTopic[order]("orders.raw")
	packing = task.NewKind[order]("order.pack", task.Config{})
	price   = bus.NewCall[order, int]("price.quote")
)

// The tests that run a service in this process set its environment, so they do not run in parallel.

// platform starts a broker and sets the environment of a service that may do everything with the declarations above.
func platform(t *testing.T) *testkit.TestBroker {
	t.Helper()
	b := testkit.Broker(t)
	grant := b.Grant(t, wire.Grant{
		Service:  "orders",
		Consumes: []wire.Source{{Stream: "orders.raw"}}, Publish: []wire.Route{{Subject: "orders.raw", Stream: "orders.raw"}},
		Handles: []string{packing.Name()}, Enqueues: []string{packing.Name()},
		Serves: []string{price.Subject()}, Calls: []string{price.Subject()},
	})
	t.Setenv(wire.EnvService, grant.Service)
	t.Setenv(wire.EnvInstance, "1")
	setGrant(t, b, grant)
	return b
}

func setGrant(t *testing.T, b *testkit.TestBroker, grant wire.Grant) {
	t.Helper()
	data, err := json.Marshal(grant)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "grant.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(wire.EnvGrant, path)
	t.Setenv(wire.EnvBus, b.URL)
}

// notifications are what a service tells its platform.
func notifications(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(testkit.TempDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	t.Setenv(sdnotify.Env, path)
	return conn
}

func expectNotified(t *testing.T, conn *net.UnixConn, want string) {
	t.Helper()
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != want {
		t.Fatalf("the platform was told %q, %v; want %q", buf[:n], err, want)
	}
}

// service is a service that runs.
type service struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	err    error
	done   chan struct{}
}

// run runs a service to the end of t, or until it is stopped.
func run(t *testing.T, parts ...hozo.Part) *service {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &service{cancel: cancel, done: make(chan struct{})}
	s.wg.Go(func() {
		defer close(s.done)
		s.err = hozo.Run(ctx, parts...)
	})
	t.Cleanup(func() { s.stop(t) })
	return s
}

// wait returns what Run returned.
func (s *service) wait(t *testing.T) error {
	t.Helper()
	testkit.Wait(t, s.done)
	return s.err
}

func (s *service) stop(t *testing.T) error {
	t.Helper()
	s.cancel()
	return s.wait(t)
}

// ownListener is a free port of loopback and its URL.
func ownListener(t *testing.T) (web.Config, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return web.Config{Listener: ln}, "http://" + ln.Addr().String()
}

// get asks on a connection of its own.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}
