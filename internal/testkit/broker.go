package testkit

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/wire"
)

// TestBroker is a real broker on a port of its own, with a folder that ends with the test.
type TestBroker struct {
	Dir  string // the broker's folder
	Port int
	URL  string // for clients; the same after a restart
	NC   *nats.Conn
	JS   jetstream.JetStream // of the platform's user, who may do everything

	engine engine

	mu     sync.Mutex
	access broker.Access
	layout broker.Layout
}

// engine is where the server runs: in this process or in one of its own.
type engine interface {
	start(t testing.TB)
	stop(t testing.TB)
	kill(t testing.TB)
}

// Broker starts a broker in this process. Its user for the tests, NC and JS, may do everything.
func Broker(t testing.TB) *TestBroker { return newTestBroker(t, TempDir(t), inProcess) }

// BrokerIn is like Broker with its folder in dir, which can be a Tmpfs.
func BrokerIn(t testing.TB, dir string) *TestBroker { return newTestBroker(t, dir, inProcess) }

// BrokerProcess starts a broker in a process of its own, which Kill can end as by kill -9. TestMain must call Main.
func BrokerProcess(t testing.TB) *TestBroker { return newTestBroker(t, TempDir(t), ownProcess) }

// BrokerProcessIn is like BrokerProcess with its folder in dir, which can be a PowerDisk's.
func BrokerProcessIn(t testing.TB, dir string) *TestBroker { return newTestBroker(t, dir, ownProcess) }

func newTestBroker(t testing.TB, dir string, newEngine func(dir string, port int) engine) *TestBroker {
	t.Helper()
	port, err := broker.ChoosePort()
	if err != nil {
		t.Fatal(err)
	}
	b := &TestBroker{Dir: filepath.Join(dir, "broker"), Port: port, URL: fmt.Sprintf("nats://127.0.0.1:%d", port)}
	password := rand.Text()
	b.access.Users = []broker.User{{Name: broker.PlatformUser, PasswordSHA256: broker.HashPassword(password)}}
	if err := broker.WriteAccess(b.Dir, b.access); err != nil {
		t.Fatal(err)
	}
	b.engine = newEngine(b.Dir, port)
	b.engine.start(t)
	t.Cleanup(func() { b.engine.stop(t) })
	b.NC = b.connect(t, broker.PlatformUser, password)
	if b.JS, err = jetstream.New(b.NC); err != nil {
		t.Fatal(err)
	}
	return b
}

// Connect connects as the instance of g; the connection is closed at the end of t.
func (b *TestBroker) Connect(t testing.TB, g wire.Grant, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return b.connect(t, g.User, g.Password, append([]nats.Option{nats.CustomInboxPrefix(g.Inbox)}, opts...)...)
}

func (b *TestBroker) connect(t testing.TB, user, password string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	opts = append([]nats.Option{
		nats.UserInfo(user, password), nats.MaxReconnects(-1),
		nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.Timeout(Patience),
	}, opts...)
	nc, err := nats.Connect(b.URL, opts...)
	if err != nil {
		t.Fatalf("connect to the test broker as %s: %v", user, err)
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() {
		nc.Close()
		Wait(t, closed)
	})
	return nc
}

// Stop ends the broker in an orderly way; Start brings it back on the same port with its data.
func (b *TestBroker) Stop(t testing.TB) { t.Helper(); b.engine.stop(t) }

// Kill ends a BrokerProcess with SIGKILL; Start brings it back on the same port with its data.
func (b *TestBroker) Kill(t testing.TB) { t.Helper(); b.engine.kill(t) }

// Start starts the broker again after Stop or Kill and returns when it is ready.
func (b *TestBroker) Start(t testing.TB) { t.Helper(); b.engine.start(t) }

// PID is the process that a BrokerProcess runs in, until it is started again.
func (b *TestBroker) PID(t testing.TB) int {
	t.Helper()
	e, ok := b.engine.(*processEngine)
	if !ok || e.cmd == nil {
		t.Fatal("the broker has no process of its own")
	}
	return e.cmd.Process.Pid
}

// StartAnew is Start for a broker whose disk has lost something: it gets its users, streams and readers again, as the
// platform gives them to every broker that starts.
func (b *TestBroker) StartAnew(t testing.TB) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := broker.WriteAccess(b.Dir, b.access); err != nil {
		t.Fatal(err)
	}
	b.engine.start(t)
	Eventually(t, b.NC.IsConnected, "the test is connected to the broker again")
	b.provisionLocked(t)
}

// Restart is Stop and Start.
func (b *TestBroker) Restart(t testing.TB) { t.Helper(); b.Stop(t); b.Start(t) }

// Declare makes or changes a stream; streams that a Grant names without a declaration get 256 MiB, a day and a
// duplicate window of ten minutes.
func (b *TestBroker) Declare(t testing.TB, spec broker.StreamSpec) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.declareLocked(spec)
	b.provisionLocked(t)
}

// Grant completes g as the platform would, makes its streams and consumers, and lets its user in. Empty fields are
// filled: Service "svc", the next free Instance, User, Password, Inbox; Durable of each source; zstd frames for each
// route without a Compression; and a source on hozo.retry for a service that consumes.
func (b *TestBroker) Grant(t testing.TB, g wire.Grant) wire.Grant {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.completeLocked(&g)
	for _, r := range g.Publish {
		b.wantLocked(r.Stream, r.Partitions)
	}
	for _, s := range g.Consumes {
		b.wantLocked(s.Stream, s.Partitions)
		for _, c := range broker.Consumers(s) {
			b.consumeLocked(c)
		}
	}
	for _, kind := range slices.Concat(g.Handles, g.Enqueues) {
		b.queueLocked(g.QueueOf(kind))
	}
	b.provisionLocked(t)
	b.access.Users = append(b.access.Users, broker.UserOf(g))
	if err := broker.WriteAccess(b.Dir, b.access); err != nil {
		t.Fatal(err)
	}
	return g
}

// Client lets a foreign client in, as the platform would: g.Service is its name, and that of its durable consumers.
func (b *TestBroker) Client(t testing.TB, g wire.Grant) wire.Grant {
	t.Helper()
	sources := slices.Clone(g.Consumes)
	for i := range sources {
		sources[i].Durable = g.Service
	}
	g = b.Grant(t, g) // makes its streams and readers
	g.User, g.Inbox, g.Consumes = g.Service, "_INBOX."+g.Service, sources
	b.mu.Lock()
	defer b.mu.Unlock()
	b.access.Users[len(b.access.Users)-1] = broker.ClientOf(g)
	if err := broker.WriteAccess(b.Dir, b.access); err != nil {
		t.Fatal(err)
	}
	return g
}

// Rotate gives the user of g a new password and writes the grant to file, as the platform would; the old password is good
// for grace. The owner is told.
func (b *TestBroker) Rotate(t testing.TB, g wire.Grant, file string, grace time.Duration) wire.Grant {
	t.Helper()
	g = b.Replace(t, g, file, grace)
	if err := b.NC.Publish(wire.CredentialSubject(g.Inbox), nil); err != nil {
		t.Fatal(err)
	}
	return g
}

// Replace is like Rotate, but tells nobody.
func (b *TestBroker) Replace(t testing.TB, g wire.Grant, file string, grace time.Duration) wire.Grant {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	g.Password = rand.Text()
	for i, u := range b.access.Users {
		if u.Name == g.User {
			b.access.Users[i] = broker.UserOf(g)
		}
	}
	if err := broker.WriteAccessOver(b.Dir, b.access, time.Now(), grace); err != nil {
		t.Fatal(err)
	}
	WriteGrant(t, g, file)
	return g
}

// WriteGrant stores g at path, which is replaced at once.
func WriteGrant(t testing.TB, g wire.Grant, path string) {
	t.Helper()
	data, err := json.Marshal(g)
	if err == nil {
		err = os.WriteFile(path+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Layout is what the test has declared so far.
func (b *TestBroker) Layout() broker.Layout {
	b.mu.Lock()
	defer b.mu.Unlock()
	return broker.Layout{Streams: slices.Clone(b.layout.Streams), Consumers: slices.Clone(b.layout.Consumers), Queues: slices.Clone(b.layout.Queues)}
}

func (b *TestBroker) completeLocked(g *wire.Grant) {
	g.Version = wire.GrantVersion
	if g.Project == "" {
		g.Project = "test"
	}
	if g.Service == "" {
		g.Service = "svc"
	}
	if g.Instance == 0 {
		for g.Instance = 1; b.hasUserLocked(g.Service + "." + strconv.Itoa(g.Instance)); g.Instance++ {
		}
	}
	g.User = g.Service + "." + strconv.Itoa(g.Instance)
	g.Password, g.Inbox = rand.Text(), "_INBOX."+g.User
	g.Publish, g.Consumes = slices.Clone(g.Publish), slices.Clone(g.Consumes)
	for i := range g.Publish {
		if g.Publish[i].Compression == "" {
			g.Publish[i].Compression, g.Publish[i].Frames = "zstd", true
		}
	}
	ordered, retries := false, false
	for i := range g.Consumes {
		if g.Consumes[i].Durable == "" {
			g.Consumes[i].Durable = g.Service
		}
		ordered = ordered || g.Consumes[i].Ordered
		retries = retries || g.Consumes[i].Stream == wire.RetryStream
	}
	if len(g.Consumes) > 0 && !retries {
		g.Consumes = append(g.Consumes, wire.Source{
			Stream: wire.RetryStream, Durable: g.Service, Ordered: ordered,
			Subjects: []string{wire.RetryStream + "." + g.Service + ".>"},
		})
	}
}

func (b *TestBroker) hasUserLocked(name string) bool {
	return slices.ContainsFunc(b.access.Users, func(u broker.User) bool { return u.Name == name })
}

func (b *TestBroker) wantLocked(stream string, partitions int) {
	known := func(s broker.StreamSpec) bool { return s.Name == stream }
	switch stream {
	case wire.DeadStream, wire.RetryStream:
		return
	}
	if !slices.ContainsFunc(b.layout.Streams, known) {
		b.declareLocked(broker.StreamSpec{Name: stream, Partitions: partitions, Keep: 24 * time.Hour, MaxBytes: 256 << 20, Dedupe: 10 * time.Minute})
	}
}

func (b *TestBroker) declareLocked(spec broker.StreamSpec) {
	b.layout.Streams = slices.DeleteFunc(b.layout.Streams, func(s broker.StreamSpec) bool { return s.Name == spec.Name })
	b.layout.Streams = append(b.layout.Streams, spec)
}

func (b *TestBroker) consumeLocked(spec broker.ConsumerSpec) {
	b.layout.Consumers = slices.DeleteFunc(b.layout.Consumers, func(c broker.ConsumerSpec) bool {
		return c.Stream == spec.Stream && c.Durable == spec.Durable
	})
	b.layout.Consumers = append(b.layout.Consumers, spec)
}

func (b *TestBroker) queueLocked(q wire.TaskQueue) {
	b.layout.Queues = slices.DeleteFunc(b.layout.Queues, func(have broker.QueueSpec) bool { return have.Name == q.Name })
	b.layout.Queues = append(b.layout.Queues, broker.QueueSpec{Name: q.Name, Kinds: q.Kinds})
}

func (b *TestBroker) provisionLocked(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := broker.Provision(ctx, b.JS, b.layout); err != nil {
		t.Fatalf("provision the test broker: %v", err)
	}
}
