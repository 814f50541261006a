package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/cron"
	"github.com/hozo-dev/hozo/internal/dispatch"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/sdnotify"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/supervisor"
	"github.com/hozo-dev/hozo/wire"
)

// Config says what a Node governs. All fields but Environ and Logger are required.
type Config struct {
	State      string   // absolute path of the state folder, whose keeper runs
	File       string   // absolute path of the manifest
	Env        string   // environment laid over it, or ""
	Executable string   // absolute path of the hozo binary, for the broker and built-in services
	Environ    []string // environment that services inherit; nil means this process's
	Logger     *slog.Logger
}

// Node governs one project on this host. Create it with New; use it for one Run.
type Node struct {
	cfg     Config
	state   state
	started time.Time

	keeper     *keeper.Client
	supervisor *supervisor.Supervisor
	nats       *nats.Conn
	js         jetstream.JetStream
	totals     *totals
	feed       *feed
	flow       flow
	slow       slowReaders
	low        lowSince
	binaries   *binaries
	letters    sync.Mutex // one command on dead letters at a time

	applying sync.Mutex // one apply at a time; guards from, declared, foreign and scaling's file
	from     applied    // what was applied last
	declared *manifest.Manifest
	foreign  []wire.Grant // of the clients of what was applied last
	scaling  *scaling
	pauses   *pauses
	crons    *cron.Runner
	pacer    *dispatch.Dispatcher

	mu       sync.Mutex // guards what follows
	manifest *manifest.Manifest
	layout   broker.Layout
	paced    *manifest.Manifest // whose limits of queues hold for sure
	// unprovisioned is whether the broker was away when layout was applied.
	unprovisioned bool

	ready chan struct{}
	ended chan Ended // one slot: the first essential instance that ended
}

var _ lifecycle.Runner = (*Node)(nil)

// New returns a Node that does nothing until Run.
func New(cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	return &Node{cfg: cfg, state: state(cfg.State), started: time.Now(), totals: newTotals(), feed: newFeed(), binaries: newBinaries(), scaling: newScaling(state(cfg.State).scale()), pauses: newPauses(state(cfg.State).pauses()), ready: make(chan struct{}), ended: make(chan Ended, 1)}, nil
}

// Ready is closed once the control API answers and the manifest has been applied.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run governs until ctx ends, and leaves every process running. It fails when the keeper is lost, so that a new node
// can find a new keeper, and when the manifest cannot be read at the start.
func (n *Node) Run(ctx context.Context) error {
	k, err := keeper.Dial(ctx, keeper.SocketPath(n.cfg.State))
	if err != nil {
		return fmt.Errorf("reach keeper: %w", err)
	}
	defer k.Close()
	n.keeper = k
	if err := n.connect(); err != nil {
		return err
	}
	defer n.nats.Close()
	subscription, err := n.nats.Subscribe(reportSubjects, n.totals.receive)
	if err != nil {
		return fmt.Errorf("subscribe to reports: %w", err)
	}
	defer func() { _ = subscription.Unsubscribe() }() // the connection closes right after

	n.supervisor = supervisor.New(supervisor.Config{
		Keeper: k, Stopped: n.state.stopped(), Ticks: n.state.ticks(), OnEvent: n.heard, Logger: n.cfg.Logger,
	})
	var g lifecycle.Group
	g.Add("supervisor", n.supervisor)
	g.Add("first apply", &once{do: n.firstApply})
	g.Add("essential", &once{do: func(context.Context) error { return nil }, then: n.awaitEnd})
	g.Add("control", &control{node: n, ready: n.ready})
	g.Add("readiness", &once{do: func(context.Context) error { return sdnotify.Send(sdnotify.Ready) }})
	g.Add("scaler", &once{do: func(context.Context) error { return nil }, then: n.scale})
	g.Add("credentials", &once{do: func(context.Context) error { return nil }, then: n.replaceCredentials})
	g.Add("janitor", &once{do: func(context.Context) error { return nil }, then: n.janitor})
	g.Add("crons", &once{do: func(context.Context) error { return nil }, then: n.tendCrons})
	g.Add("dispatcher", &once{do: func(context.Context) error { return nil }, then: n.letOut})
	return g.Run(ctx)
}

// connect prepares the connection to the broker, which may not run yet: it is started by the first apply.
func (n *Node) connect() error {
	password, err := n.state.password()
	if err != nil {
		return fmt.Errorf("read own credential: %w", err)
	}
	port, err := n.state.port()
	if err != nil {
		return err
	}
	n.nats, err = nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", port),
		nats.Name("node"), nats.UserInfo(broker.PlatformUser, password),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		// The list of users is written before the broker starts, but a refusal must not end the connection for ever.
		nats.IgnoreAuthErrorAbort())
	if err != nil {
		return fmt.Errorf("prepare broker connection: %w", err)
	}
	n.js, err = jetstream.New(n.nats)
	if err != nil {
		return fmt.Errorf("prepare broker connection: %w", err)
	}
	n.pacer = dispatch.New(n.nats, n.js, n.cfg.Logger)
	n.crons = cron.NewRunner(n.nats, n.js, cron.Config{Logger: n.cfg.Logger, Stored: n.storedUpTo})
	return nil
}

// provisionPatience bounds how long an apply waits for a broker that is there but does not answer.
const provisionPatience = 15 * time.Second

// provisionTry bounds one try of it: an answer that got lost with a broker that died never comes. Trying again is harmless.
const provisionTry = 3 * time.Second

// provision makes the broker hold layout.
func (n *Node) provision(ctx context.Context, layout broker.Layout) error {
	ctx, cancel := context.WithTimeoutCause(ctx, provisionPatience, fmt.Errorf("the broker did not answer within %s", provisionPatience))
	defer cancel()
	for {
		try, done := context.WithTimeout(ctx, provisionTry)
		err := broker.Provision(try, n.js, layout)
		lost := try.Err() != nil
		done()
		switch {
		case err == nil:
			return nil
		case !lost || ctx.Err() != nil:
			return fmt.Errorf("provision the broker: %w", err)
		}
	}
}

func (n *Node) current() *manifest.Manifest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.manifest
}

// down stops every service, those that need others first, and the broker last.
func (n *Node) down(ctx context.Context) error { return n.supervisor.StopAll(ctx) }

// trimEvery is how often full streams are looked for. At 100 MB/s a stream of 1 GiB gains half its limit in that time,
// and trimming begins at 70 %; it is also what a publisher that was refused has to wait.
const trimEvery = 2 * time.Second

// janitor tends the streams until ctx ends.
func (n *Node) janitor(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !n.nats.IsConnected() {
			continue
		}
		err := n.tend(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			n.cfg.Logger.WarnContext(ctx, "streams cannot be tended", "error", err)
		}
		failing = err != nil
	}
}

// tend does what is due in the broker.
func (n *Node) tend(ctx context.Context) error {
	n.mu.Lock()
	layout, unprovisioned := n.layout, n.unprovisioned
	n.mu.Unlock()
	if unprovisioned {
		if err := n.catchUp(ctx); err != nil {
			return err
		}
	}
	if m := n.current(); m != nil {
		n.mu.Lock()
		paced := n.paced
		n.mu.Unlock()
		if paced != m {
			n.setPaced(ctx, m, paced)
		}
		n.look(ctx, m, &status.Snapshot{}) // a reader is slow by comparison with what it was
	}
	_, err := broker.Trim(ctx, n.js, layout)
	return err
}

// catchUp provisions a broker that was away during an apply.
func (n *Node) catchUp(ctx context.Context) error {
	// Not beside an apply: it would bring back the layout before that one.
	n.applying.Lock()
	defer n.applying.Unlock()
	n.mu.Lock()
	layout := n.layout
	n.mu.Unlock()
	if err := n.provision(ctx, layout); err != nil {
		return err
	}
	n.mu.Lock()
	n.unprovisioned = false
	n.mu.Unlock()
	return nil
}

// once is a lifecycle.Runner that is ready when do is done and then runs then, or waits.
type once struct {
	do   func(context.Context) error
	then func(context.Context) error

	init  sync.Once
	ready chan struct{}
}

func (o *once) Ready() <-chan struct{} {
	o.init.Do(func() { o.ready = make(chan struct{}) })
	return o.ready
}

func (o *once) Run(ctx context.Context) error {
	o.Ready() // makes the channel
	if err := o.do(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // it was asked to stop
		}
		return err
	}
	close(o.ready)
	if o.then != nil {
		return o.then(ctx)
	}
	<-ctx.Done()
	return nil
}

// Provisioner makes the broker of a state folder hold what the node has written down for it. It belongs into the
// broker's own process, before that says that it is ready: then no service meets a broker without its streams.
type Provisioner struct {
	once
}

// NewProvisioner returns a Provisioner for the broker that url answers at.
func NewProvisioner(stateDir string, url func() string) *Provisioner {
	p := &Provisioner{}
	p.do = func(ctx context.Context) error {
		st := state(stateDir)
		var layout broker.Layout
		if err := read(st.layout(), &layout); errors.Is(err, os.ErrNotExist) {
			return nil // nobody has asked for anything yet
		} else if err != nil {
			return &fault.Error{Code: "node/bad-layout", What: "the broker's layout cannot be read", Where: st.layout(), Err: err, Fix: "`hozo up` writes it anew"}
		}
		password, err := st.password()
		if err != nil {
			return err
		}
		nc, err := nats.Connect(url(), nats.Name("provisioner"), nats.UserInfo(broker.PlatformUser, password))
		if err != nil {
			return fmt.Errorf("connect to own broker: %w", err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		return broker.Provision(ctx, js, layout)
	}
	return p
}

// joined is errors.Join that keeps a single error as it is.
func joined(a, b error) error {
	if b == nil {
		return a
	}
	return errors.Join(a, b)
}
