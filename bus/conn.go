package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"
)

const (
	reconnectFirst = 50 * time.Millisecond
	reconnectMost  = 500 * time.Millisecond

	// ackTimeout is how long one try to store a message waits for its acknowledgement. The broker answers in well under
	// a millisecond; five seconds leaves room for a slow disk, and a repeat is recognised by its id.
	ackTimeout = 5 * time.Second

	// pendingAcks bounds messages sent and not acknowledged. Bytes are bounded long before: 8 MiB of window would
	// need frames under 2 KiB to reach it.
	pendingAcks = 16384

	// outWindowBytes bounds what all stages of a process have sent and not seen acknowledged.
	outWindowBytes = 32 << 20

	// messageOverhead is room kept in a message for headers and a frame's offset table: 16,384 offsets of 4 bytes and
	// headers of a few hundred bytes.
	messageOverhead = 80 << 10
)

// Config says which bus to connect to and as whom.
type Config struct {
	URL    string       // nats://127.0.0.1:PORT
	Grant  wire.Grant   // credential and wiring
	File   string       // the file that Grant was read from, which is read again when the credential in it is replaced; may be empty
	Run    string       // id of this incarnation, told in reports; may be empty
	Logger *slog.Logger // nil discards
}

// Conn is a connection to the bus, shared by every part of a process. It reconnects for ever. Safe for concurrent use.
type Conn struct {
	cfg        Config
	nc         *nats.Conn
	credential credential
	js         jetstream.JetStream
	log        *slog.Logger
	counters   Counters
	denials    denials
	outWindow  *semaphore.Weighted // bytes
	powerful   bool                // the grant has to do with streams of durability power
	commits    commits

	mu         sync.Mutex
	reconnects uint64
	changed    chan struct{}            // closed and replaced at every reconnect
	publishers []*Publisher             // all of them, to drain on Close
	byTopic    map[sharedKey]*Publisher // those of Topic.Publish
	closed     bool
	attached   map[any]any
	posts      *posts
}

// Connect connects to the bus. It tries until the bus answers or ctx ends; then the error is a fault bus/unavailable.
// Afterwards the Conn reconnects by itself, waiting 50 ms to 500 ms between tries.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Conn{
		cfg: cfg, log: cfg.Logger,
		outWindow: semaphore.NewWeighted(outWindowBytes), powerful: powerful(cfg.Grant),
		changed: make(chan struct{}),
		byTopic: make(map[sharedKey]*Publisher),
	}
	c.credential.path, c.credential.grant = cfg.File, cfg.Grant
	for attempt := 0; ; attempt++ {
		nc, err := nats.Connect(cfg.URL, c.options()...)
		if err == nil {
			c.nc = nc
			break
		}
		if attempt == 0 {
			c.log.InfoContext(ctx, "waiting for the bus", "url", cfg.URL, "error", err)
		}
		if !sleep(ctx, reconnectDelay(attempt)) {
			return nil, ended(ctx, cfg.URL, err)
		}
	}
	js, err := jetstream.New(c.nc,
		jetstream.WithPublishAsyncMaxPending(pendingAcks),
		jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("set up jetstream: %w", err)
	}
	c.js = js
	if err := c.followCredential(); err != nil {
		c.nc.Close()
		return nil, err
	}
	return c, nil
}

// FromEnv connects with what the platform put into the environment: HOZO_BUS and the file that HOZO_GRANT names. It
// returns the fault bus/no-platform when they are missing. A nil logger discards.
func FromEnv(ctx context.Context, logger *slog.Logger) (*Conn, error) {
	url, path := os.Getenv(wire.EnvBus), os.Getenv(wire.EnvGrant)
	if url == "" || path == "" {
		return nil, &fault.Error{
			Code: "bus/no-platform", Where: wire.EnvBus + ", " + wire.EnvGrant,
			What: "this program was started without a Hozo platform",
			Fix:  "name it under services in hozo.yaml and run hozo up",
		}
	}
	grant, err := wire.ReadGrant(path)
	if err != nil {
		return nil, fmt.Errorf("read grant: %w", err)
	}
	return Connect(ctx, Config{URL: url, Grant: grant, File: path, Run: os.Getenv(wire.EnvRun), Logger: logger})
}

func (c *Conn) options() []nats.Option {
	g := c.cfg.Grant
	opts := []nats.Option{
		nats.Name(fmt.Sprintf("%s.%d", g.Service, g.Instance)),
		nats.MaxReconnects(-1),
		nats.Timeout(2 * time.Second),
		nats.IgnoreAuthErrorAbort(), // a restarted broker may know this user only a moment later
		nats.CustomReconnectDelay(reconnectDelay),
		nats.ReconnectBufSize(-1), // publishing while disconnected fails at once; callers decide and retry
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2), // a broker that hangs is given up after 10 to 15 s
		nats.ErrorHandler(c.asyncError),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				c.log.Warn("bus connection lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			c.log.Info("bus connection is back")
			c.denials.forget()
			c.failPosts()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.reconnects++
			close(c.changed)
			c.changed = make(chan struct{})
		}),
	}
	if g.User != "" {
		opts = append(opts, nats.UserInfoHandler(c.credential.now))
	}
	if g.Inbox != "" {
		opts = append(opts, nats.CustomInboxPrefix(g.Inbox))
	}
	return opts
}

// asyncError logs what the broker says outside any request: mostly a right that the grant lacks.
func (c *Conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if subject, denied, ok := c.denied(err); ok {
		c.denials.add(subject, denied)
		err = denied
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	c.log.Warn("the bus reports an error", "subject", subject, "error", err)
}

// Grant returns the instance's credential and wiring.
func (c *Conn) Grant() wire.Grant { return c.cfg.Grant }

// NATS returns the connection below, for what this package does not cover.
func (c *Conn) NATS() *nats.Conn { return c.nc }

// JetStream returns the JetStream context of the connection.
func (c *Conn) JetStream() jetstream.JetStream { return c.js }

// Connected reports whether the bus is reachable now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Counters returns the totals of this process.
func (c *Conn) Counters() *Counters { return &c.counters }

// Close waits for publishers to store what they hold, flushes and closes the connection. Call it when every part that
// uses the Conn has returned. It gives up waiting when ctx ends; the connection is closed in any case.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	publishers := slices.Clone(c.publishers)
	c.mu.Unlock()
	var errs []error
	for _, p := range publishers {
		errs = append(errs, p.drain(ctx))
	}
	if c.nc.IsConnected() {
		if err := c.nc.FlushWithContext(ctx); err != nil {
			errs = append(errs, fmt.Errorf("flush: %w", err))
		}
	}
	c.nc.Close()
	c.failPosts()
	return errors.Join(errs...)
}

// link returns how often the connection was made again, and a channel that is closed when that number grows.
func (c *Conn) link() (uint64, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reconnects, c.changed
}

// route finds the route of subject in the grant.
func (c *Conn) route(subject string) (wire.Route, error) {
	for _, r := range c.cfg.Grant.Publish {
		published, _, event := wire.SplitSubject(r.Stream, subject)
		if event && wire.Covers(r.Subject, published) {
			return r, nil
		}
	}
	return wire.Route{}, c.undeclared(CodeNoRoute, "publish to", "publishes", subject)
}

// maxEventBytes is the largest event that surely fits in one message, whatever it compresses to.
func (c *Conn) maxEventBytes() int { return int(c.nc.MaxPayload()) - messageOverhead }

func reconnectDelay(attempt int) time.Duration {
	d := min(reconnectFirst<<min(max(attempt, 0), 10), reconnectMost)
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
