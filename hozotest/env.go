package hozotest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/testtime"
	"github.com/hozo-dev/hozo/wire"
)

// DefaultPatience bounds each wait of an Env: far more than what any test should wait for, on a busy machine too.
const DefaultPatience = time.Minute

// testService is who the test itself is: it may publish, enqueue, ask and watch all that the manifest names.
const testService = "hozotest"

// Config says what an Env is. Manifest or Text is required.
type Config struct {
	Manifest string        // path of the project's hozo.yaml, from the test's folder
	Text     string        // the manifest itself, in place of a file
	Patience time.Duration // most that any wait may take; default a minute
	Logger   *slog.Logger  // of the broker and the connections; nil discards
}

// Env is a platform for one test. Its methods fail the test when they cannot do what they say, and are for the test's own
// goroutine. It ends with the test: services first, then the broker.
type Env struct {
	t        testing.TB
	cfg      Config
	manifest *manifest.Manifest
	layout   broker.Layout
	grants   map[string]wire.Grant // by instance
	url      string
	admin    *bus.Conn // of the platform
	own      *bus.Conn // of the test

	mu      sync.Mutex
	running map[string]int // instances by service
}

// New starts the broker, makes the streams and queues of the manifest and lets its services in.
func New(t testing.TB, cfg Config) *Env {
	t.Helper()
	return newEnv(t, cfg, inProcess)
}

func newEnv(t testing.TB, cfg Config, start func(t testing.TB, dir string, port int)) *Env {
	t.Helper()
	if cfg.Patience <= 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Env{t: t, cfg: cfg, running: map[string]int{}, grants: map[string]wire.Grant{}}
	e.load()
	password := rand.Text()
	platform := wire.Grant{Version: wire.GrantVersion, Project: e.manifest.Project, Service: "hozo", User: broker.PlatformUser, Password: password, Inbox: "_INBOX.hozo"}
	access := broker.Access{Users: []broker.User{{Name: platform.User, PasswordSHA256: broker.HashPassword(password)}}}
	var grants []wire.Grant
	e.layout, grants = node.Wiring(e.manifest)
	for _, g := range grants {
		g.Password = rand.Text()
		e.grants[g.User] = g
		access.Users = append(access.Users, broker.UserOf(g))
	}
	dir := filepath.Join(t.TempDir(), "broker")
	port, err := broker.ChoosePort()
	if err == nil {
		err = broker.WriteAccess(dir, access)
	}
	if err != nil {
		t.Fatalf("prepare the broker: %v", err)
	}
	e.url = fmt.Sprintf("nats://127.0.0.1:%d", port)
	start(t, dir, port)
	e.admin = e.connect(platform)
	ctx, cancel := e.patience()
	defer cancel()
	if err := broker.Provision(ctx, e.admin.JetStream(), e.layout); err != nil {
		t.Fatalf("make the streams and queues of the manifest: %v", err)
	}
	e.own = e.connect(e.grants[testService+".1"])
	return e
}

// load reads the manifest and adds the test to it.
func (e *Env) load() {
	e.t.Helper()
	var err error
	switch {
	case (e.cfg.Manifest == "") == (e.cfg.Text == ""):
		e.t.Fatal("hozotest: give either the path of a manifest or its text")
	case e.cfg.Text != "":
		e.manifest, err = manifest.Parse([]byte(e.cfg.Text), "hozo.yaml", "")
	default:
		e.manifest, err = manifest.Load(e.cfg.Manifest, "")
	}
	if err != nil {
		e.t.Fatalf("read the manifest: %v", err)
	}
	own := manifest.Service{Name: testService, Scale: 1, Watches: e.manifest.Live}
	for _, s := range e.manifest.Streams {
		own.Publishes = append(own.Publishes, manifest.Route{Subject: s.Name, Stream: s.Name}, manifest.Route{Subject: s.Name + ".>", Stream: s.Name})
	}
	for _, subject := range e.manifest.Live {
		own.Publishes = append(own.Publishes, manifest.Route{Subject: subject, Live: true})
	}
	for _, s := range e.manifest.Services {
		own.Enqueues = append(own.Enqueues, s.Handles...)
		own.Calls = append(own.Calls, s.Serves...)
	}
	slices.Sort(own.Enqueues)
	own.Enqueues = slices.Compact(own.Enqueues)
	e.manifest.Services = append(e.manifest.Services, own)
}

// inProcess runs the broker in this process.
func inProcess(t testing.TB, dir string, port int) {
	t.Helper()
	b, err := broker.New(broker.Config{Dir: dir, Port: port, Memory: 1 << 40, Store: 1 << 42, Logger: slog.New(slog.DiscardHandler)}) // both are the test process's affair
	if err != nil {
		t.Fatalf("make the broker: %v", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // it ends after the services
	ended := make(chan error, 1)                                          // one Run, one result
	var wg sync.WaitGroup
	wg.Go(func() { ended <- b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	select {
	case <-b.Ready():
	case err := <-ended:
		t.Fatalf("start the broker: %v", err)
	}
}

// connect connects as somebody until the end of the test.
func (e *Env) connect(g wire.Grant) *bus.Conn {
	e.t.Helper()
	conn := e.dial(g)
	e.t.Cleanup(func() {
		ctx, cancel := e.patience()
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			e.t.Errorf("close the connection of %s: %v", g.User, err)
		}
	})
	return conn
}

func (e *Env) dial(g wire.Grant) *bus.Conn {
	e.t.Helper()
	ctx, cancel := e.patience()
	defer cancel()
	conn, err := bus.Connect(ctx, bus.Config{URL: e.url, Grant: g, Logger: e.cfg.Logger})
	if err != nil {
		e.t.Fatalf("connect as %s: %v", g.User, err)
	}
	testtime.Mark(conn)
	return conn
}

// patience is a context for one wait, of cleanup too.
func (e *Env) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(e.t.Context()), e.cfg.Patience)
}

func (e *Env) js() jetstream.JetStream { return e.admin.JetStream() }

// Conn is a connection of the test's own, which may publish to every stream, enqueue every kind, ask every subject that is served and
// watch what is live.
func (e *Env) Conn() *bus.Conn { return e.own }

// Run runs parts as an instance of a service of the manifest, with the rights of its lines, until the end of the test or until stop is
// called, which ends it as SIGTERM would and waits. Run returns when the parts are ready, but for HTTP, which comes last. A service
// can run as often at once as its scale says.
func (e *Env) Run(service string, parts ...hozo.Part) (stop func()) {
	e.t.Helper()
	e.mu.Lock()
	e.running[service]++
	number := e.running[service]
	e.mu.Unlock()
	grant, known := e.grants[fmt.Sprintf("%s.%d", service, number)]
	if !known {
		e.t.Fatalf("hozotest: the manifest has no instance %d of a service %q; raise its scale or correct the name", number, service)
	}
	ready := make(chan struct{})
	probe := hozo.Work("hozotest", &last{ready})
	ctx, cancel := context.WithCancel(context.WithoutCancel(e.t.Context()))
	ended := make(chan error, 1) // one Run, one result
	var wg sync.WaitGroup
	all := slices.Concat([]hozo.Part{hozo.Bus(e.dial(grant))}, parts, []hozo.Part{probe})
	wg.Go(func() { ended <- hozo.Run(ctx, all...) })
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		e.mu.Lock()
		e.running[service]--
		e.mu.Unlock()
		if err := <-ended; err != nil {
			e.t.Errorf("service %s ended: %v", service, err)
		}
	})
	e.t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		e.t.Fatalf("service %s did not start: %v", service, err)
	case <-time.After(e.cfg.Patience):
		e.t.Fatalf("service %s was not ready within %v", service, e.cfg.Patience)
	}
	return stop
}

// last is a part that starts when all before it are ready.
type last struct{ started chan struct{} }

func (l *last) Run(ctx context.Context) error {
	close(l.started)
	<-ctx.Done()
	return nil
}

func (*last) Ready() <-chan struct{} {
	now := make(chan struct{})
	close(now)
	return now
}

// Pause has a queue rest, as hozo task pause does: what runs is finished. Drain does not wait for what rests.
func (e *Env) Pause(queue string) { e.t.Helper(); e.pause(queue, true) }

// Resume has a queue go on.
func (e *Env) Resume(queue string) { e.t.Helper(); e.pause(queue, false) }

func (e *Env) pause(queue string, paused bool) {
	e.t.Helper()
	i := slices.IndexFunc(e.layout.Queues, func(q broker.QueueSpec) bool { return q.Name == queue })
	if i < 0 {
		e.t.Fatalf("hozotest: the manifest has no queue %q", queue)
	}
	e.layout.Queues[i].Paused = paused
	ctx, cancel := e.patience()
	defer cancel()
	if err := broker.SetPaused(ctx, e.js(), e.layout.Queues[i]); err != nil {
		e.t.Fatalf("pause or resume queue %s: %v", queue, err)
	}
}
