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
	"sync/atomic"
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

const (
	// checkInterval is how often the broker looks whether its store still works. The log reports most failures at once;
	// this finds the others.
	checkInterval = time.Second

	// spaceInterval is how often the broker looks at the space of its file system: at 100 MB/s it loses 10 MB between
	// two looks, a part of any usual reserve. The question costs a microsecond.
	spaceInterval = 100 * time.Millisecond
)

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
	// SyncAlways makes the server fsync every message before it acknowledges it, for clients that know nothing of
	// commits. It slows every stream.
	SyncAlways bool
	// Doors are where foreign clients come in, beside Port. Only users with Client set may use them.
	Doors []Door
	// TLS is the certificate of all doors; nil leaves them without.
	TLS *TLSFiles
	// Origins are the pages that may connect to a WebSocket door; without any those of the same host.
	Origins []string
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
	errs = append(errs, c.validateDoors())
	if c.Memory < 0 || c.Store < 0 {
		errs = append(errs, fmt.Errorf("broker config: negative limit (memory %d, store %d)", c.Memory, c.Store))
	}
	return errors.Join(errs...)
}

// Broker is one embedded server. It runs once.
//
// It outlives a full disk. While less than the reserve of the file system is free it refuses new messages, and readers
// work on. Should the disk be full before that, the server, which cannot go on with a file that it failed to write, is
// stopped until there is room and then started again in this process; clients see an outage of that length.
type Broker struct {
	cfg    Config
	store  string // folder
	gate   *gate
	server atomic.Pointer[server.Server]
	bound  atomic.Int64 // port of the first server; the next must be where the clients look for it
	log    *serverLog
	ready  chan struct{}
	once   sync.Once // closes ready
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
	gate, err := newGate(cfg.Dir)
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, store: store, gate: gate, log: newServerLog(cfg.Logger), ready: make(chan struct{})}
	if err := b.prepare(); err != nil {
		return nil, err
	}
	return b, nil
}

// prepare makes a server that is not started yet.
func (b *Broker) prepare() error {
	limit, err := storeLimit(b.cfg.Dir, b.store, b.cfg.Store)
	if err != nil {
		return fmt.Errorf("measure the room for the broker's store: %w", err)
	}
	if b.cfg.Store > limit {
		b.cfg.Logger.Warn("the store is limited by the free space of its file system",
			"wanted_bytes", b.cfg.Store, "limit_bytes", limit)
	}
	cfg := b.cfg
	cfg.Port = cmp.Or(int(b.bound.Load()), cfg.Port)
	srv, err := server.NewServer(serverOptions(cfg, b.store, limit, b.gate))
	if err != nil {
		return fmt.Errorf("configure nats-server: %w", err)
	}
	srv.SetLoggerV2(b.log, false, false, false)
	b.server.Store(srv)
	return nil
}

// Ready is closed once the broker has answered a JetStream request over a real connection.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// URL is the address for clients: nats://127.0.0.1:PORT. With Config.Port 0 it is known once the broker is ready.
func (b *Broker) URL() string {
	port := b.cfg.Port
	if addr, ok := b.server.Load().Addr().(*net.TCPAddr); ok {
		port = addr.Port
	}
	return fmt.Sprintf("nats://127.0.0.1:%d", port)
}

// Run serves until ctx is done. A full disk does not end it. It returns a fault with code broker/store-broken when the
// store cannot be written for another reason, and broker/no-start when the server could not start. The memory limit is
// the process's and is put back at the end.
func (b *Broker) Run(ctx context.Context) error {
	old := debug.SetMemoryLimit(b.cfg.Memory)
	defer debug.SetMemoryLimit(old)
	front, err := b.openFront()
	if err != nil {
		return err
	}
	defer front.run(ctx)()
	for {
		if !b.awaitRoom(ctx) {
			return nil
		}
		full, err := b.runServer(ctx)
		if !full {
			return err
		}
		b.cfg.Logger.ErrorContext(ctx, "the disk is full: the server is stopped until there is room", "store", b.store, "error", err)
		b.log.forget()
		b.gate.forget()
		if err := b.prepare(); err != nil {
			return err
		}
	}
}

// awaitRoom waits until a server can work in the store. It reports false when ctx ended first.
func (b *Broker) awaitRoom(ctx context.Context) bool {
	ticker := time.NewTicker(spaceInterval)
	defer ticker.Stop()
	waiting := false
	for {
		space, err := SpaceOf(b.store)
		if err != nil || space.enough() { // what is wrong with the folder the server says better
			if waiting {
				b.cfg.Logger.InfoContext(ctx, "there is room again", "free_bytes", space.FreeBytes)
			}
			return true
		}
		if !waiting {
			waiting = true
			b.cfg.Logger.WarnContext(ctx, "waiting for room on the file system of the store", "store", b.store, "free_bytes", space.FreeBytes)
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// runServer runs the prepared server until ctx is done or it fails, and reports whether a full disk was the reason.
func (b *Broker) runServer(ctx context.Context) (full bool, err error) {
	srv := b.server.Load()
	var wg sync.WaitGroup
	wg.Go(srv.Start)
	full, err = b.serve(ctx, srv)
	wg.Wait() // Start returns by itself; a shutdown in its middle would leave parts of the server running
	if addr, ok := srv.Addr().(*net.TCPAddr); ok {
		b.bound.Store(int64(addr.Port))
	}
	srv.Shutdown()
	srv.WaitForShutdown()
	return full, err
}

func (b *Broker) serve(ctx context.Context, srv *server.Server) (full bool, err error) {
	if line, err := b.awaitAnswer(ctx, srv); err != nil {
		if ctx.Err() != nil {
			return false, nil // asked to stop before it was ready
		}
		return b.isFull(line), err
	}
	stop, err := b.serveRenewals()
	if err != nil {
		return false, err
	}
	defer stop()
	committer, err := b.newCommitter()
	if err != nil {
		return false, err
	}
	syncing := make(chan error, 1)
	commitCtx, rest := context.WithCancel(ctx)
	var commits sync.WaitGroup
	commits.Go(func() { syncing <- committer.run(commitCtx) })
	defer commits.Wait()
	defer rest()
	select {
	case <-committer.listening:
	case err := <-syncing:
		if ctx.Err() != nil {
			return false, nil
		}
		return b.isFull(""), err
	}
	b.once.Do(func() { close(b.ready) })
	b.cfg.Logger.InfoContext(ctx, "broker ready", "url", b.URL())
	check, look := time.NewTicker(checkInterval), time.NewTicker(spaceInterval)
	defer check.Stop()
	defer look.Stop()
	intake := intake{account: srv.GlobalAccount(), store: b.store, log: b.cfg.Logger}
	said := "" // the last complaint, so that each is logged once
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case line := <-b.log.broken:
			return b.isFull(line), b.storeFault(errors.New(line))
		case err := <-syncing:
			if err == nil {
				return false, nil // ctx is done
			}
			return b.isFull(err.Error()), b.storeFault(err)
		case <-look.C:
			intake.look(ctx)
		case <-check.C:
			b.endLapsed(ctx, srv)
			if !srv.JetStreamEnabled() {
				return b.isFull(""), b.storeFault(errors.New("JetStream has switched itself off"))
			}
			health := srv.Healthz(&server.HealthzOptions{})
			if health.StatusCode != http.StatusOK && health.Error != said {
				said = health.Error
				b.cfg.Logger.WarnContext(ctx, "broker is not healthy", "error", health.Error)
			}
		}
	}
}

// isFull reports whether a full disk is behind a failure that the server told in line.
func (b *Broker) isFull(line string) bool {
	space, err := SpaceOf(b.store)
	return outOfSpace(line) || (err == nil && !space.enough())
}

// awaitAnswer returns nil once a JetStream request was answered, or why it never will be, with the line of the server's
// log that tells it, if one does.
func (b *Broker) awaitAnswer(ctx context.Context, srv *server.Server) (line string, err error) {
	ticker := time.NewTicker(5 * time.Millisecond) // the server offers no channel; recovery of a store takes milliseconds to minutes
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case line := <-b.log.fatal:
			return line, b.startFault(errors.New(line))
		case line := <-b.log.broken:
			return line, b.storeFault(errors.New(line))
		case <-ticker.C:
			if srv.ReadyForConnections(time.Millisecond) {
				return "", b.probe(ctx)
			}
		}
	}
}

// probe asks JetStream for its account over TCP, as a service would, with a credential that only this process knows.
func (b *Broker) probe(ctx context.Context) error {
	nc, err := nats.Connect(b.URL(), nats.UserInfo(probeUser, b.gate.ownPassword), nats.NoReconnect(),
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
		Code: "broker/store-broken", What: "the broker's store cannot be written", Err: err, Where: b.store,
		Fix: "look at the file system and its disk; what was acknowledged is kept, and the broker is started again by itself",
	}
}
