package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
)

// DefaultMemory is the soft memory limit of the broker process when Config names none: 512 MiB. An idle JetStream
// server takes about 25 MB; the rest is room for block caches and the queues of slow clients.
const DefaultMemory = 512 << 20

// checkInterval is how often the broker looks whether its store still works. The log reports most failures at once;
// this finds the others.
const checkInterval = time.Second

// Config tunes a Broker.
type Config struct {
	// Dir is the broker's folder, made when it is missing. It holds access.json and the store. Required.
	Dir string
	// Port is the TCP port on 127.0.0.1. Zero takes a free one; see Broker.URL.
	Port int
	// Memory is the soft memory limit of this process in bytes. Zero means DefaultMemory.
	Memory int64
	// Store is the most bytes that all streams may take on disk. Zero means three quarters of what the file system has
	// left for them. In both cases a reserve of the file system is kept free.
	Store int64
	// SyncAlways makes the server fsync every message before it acknowledges it.
	SyncAlways bool
	// Logger receives the server's log; nil discards it.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Memory = cmp.Or(c.Memory, DefaultMemory)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("broker config: Dir is empty"))
	}
	if c.Port < 0 || c.Port > math.MaxUint16 {
		errs = append(errs, fmt.Errorf("broker config: port %d is outside 0..65535", c.Port))
	}
	if c.Memory < 0 || c.Store < 0 {
		errs = append(errs, fmt.Errorf("broker config: negative limit (memory %d, store %d)", c.Memory, c.Store))
	}
	return errors.Join(errs...)
}

// Broker is one embedded server. It runs once.
type Broker struct {
	cfg    Config
	gate   *gate
	server *server.Server
	log    *serverLog
	ready  chan struct{}
}

var _ lifecycle.Runner = (*Broker)(nil)

// New prepares a broker in cfg.Dir; it listens on nothing until Run. It returns a fault when the folder cannot be used.
func New(cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	store := filepath.Join(cfg.Dir, "store")
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, &fault.Error{
			Code: "broker/store-unusable", What: "the broker's folder cannot be made", Where: store,
			Fix: "make the folder writable for the user who runs Hozo, or name another one with --state", Err: err,
		}
	}
	room, err := measureRoom(store)
	if err != nil {
		return nil, fmt.Errorf("measure the room for the broker's store: %w", err)
	}
	limit := room.limit(cfg.Store)
	if cfg.Store > limit {
		cfg.Logger.Warn("the store is limited by the free space of its file system",
			"wanted_bytes", cfg.Store, "limit_bytes", limit)
	}
	gate, err := newGate(cfg.Dir)
	if err != nil {
		return nil, err
	}
	log := newServerLog(cfg.Logger)
	srv, err := server.NewServer(serverOptions(cfg, store, limit, gate))
	if err != nil {
		return nil, fmt.Errorf("configure nats-server: %w", err)
	}
	srv.SetLoggerV2(log, false, false, false)
	return &Broker{cfg: cfg, gate: gate, server: srv, log: log, ready: make(chan struct{})}, nil
}

// Ready is closed once the broker has answered a JetStream request over a real connection.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// URL is the address for clients: nats://127.0.0.1:PORT. With Config.Port 0 it is known once the broker is ready.
func (b *Broker) URL() string {
	port := b.cfg.Port
	if addr, ok := b.server.Addr().(*net.TCPAddr); ok {
		port = addr.Port
	}
	return fmt.Sprintf("nats://127.0.0.1:%d", port)
}

// Run serves until ctx is done. It returns a fault with code broker/store-full when the store cannot be written any
// more, and broker/no-start when the server could not start. The memory limit is the process's and is put back at the
// end.
func (b *Broker) Run(ctx context.Context) error {
	old := debug.SetMemoryLimit(b.cfg.Memory)
	defer debug.SetMemoryLimit(old)
	var wg sync.WaitGroup
	wg.Go(b.server.Start)
	err := b.serve(ctx)
	wg.Wait() // Start returns by itself; a shutdown in its middle would leave parts of the server running
	b.server.Shutdown()
	b.server.WaitForShutdown()
	return err
}

func (b *Broker) serve(ctx context.Context) error {
	if err := b.awaitAnswer(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop before it was ready
		}
		return err
	}
	close(b.ready)
	b.cfg.Logger.InfoContext(ctx, "broker ready", "url", b.URL())
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	said := "" // the last complaint, so that each is logged once
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-b.log.broken:
			return b.storeFault(errors.New(line))
		case <-ticker.C:
			if !b.server.JetStreamEnabled() {
				return b.storeFault(errors.New("JetStream has switched itself off"))
			}
			health := b.server.Healthz(&server.HealthzOptions{})
			if health.StatusCode != http.StatusOK && health.Error != said {
				said = health.Error
				b.cfg.Logger.WarnContext(ctx, "broker is not healthy", "error", health.Error)
			}
		}
	}
}

// awaitAnswer returns nil once a JetStream request was answered, or why it never will be.
func (b *Broker) awaitAnswer(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Millisecond) // the server offers no channel; recovery of a store takes milliseconds to minutes
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line := <-b.log.fatal:
			return b.startFault(errors.New(line))
		case line := <-b.log.broken:
			return b.storeFault(errors.New(line))
		case <-ticker.C:
			if b.server.ReadyForConnections(time.Millisecond) {
				return b.probe(ctx)
			}
		}
	}
}

// probe asks JetStream for its account over TCP, as a service would, with a credential that only this process knows.
func (b *Broker) probe(ctx context.Context) error {
	nc, err := nats.Connect(b.URL(), nats.UserInfo(probeUser, b.gate.probePassword), nats.NoReconnect(),
		nats.Name("hozo-broker-probe"), nats.Timeout(10*time.Second))
	if err != nil {
		return fmt.Errorf("connect to the own server: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use the own server: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("ask the own server whether JetStream works: %w", err)
	}
	return nil
}

func (b *Broker) startFault(err error) error {
	return &fault.Error{
		Code: "broker/no-start", What: "the broker cannot start", Where: b.URL(), Err: err,
		Fix: "if another program uses the port, stop it, or delete " + filepath.Join(b.cfg.Dir, "port") + " and start the project again",
	}
}

func (b *Broker) storeFault(err error) error {
	return &fault.Error{
		Code: "broker/store-full", What: "the broker's store cannot be written", Err: err,
		Where: filepath.Join(b.cfg.Dir, "store"),
		Fix:   "free space on that file system, or give the streams a smaller max_bytes; what was acknowledged is kept, and the broker is started again by itself",
	}
}
