package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Keeper is the parent of every process of a project. It waits for every child of its process, so nothing else in that
// process may start one.
type Keeper struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{}
	asked chan struct{} // closed by a shutdown request
	ask   sync.Once
	halt  chan struct{} // closed when the stop begins: nothing is spawned any more
	wg    sync.WaitGroup

	// Set by Run before anything else looks.
	hello    Hello
	null     *os.File
	notifier *notifier
	logs     *logs

	mu       sync.Mutex // also held over fork and over reaping, so no wait status is lost or stolen
	stopping bool
	records  map[string]*record // by name
	live     map[int]*record    // by pid, until it is reaped
	sockets  map[string]*socket // by name
	conns    map[*conn]bool
	watchers map[*conn]bool // those of conns that asked for events
	saveErr  bool           // keeper.json could not be written last time
}

// New checks the configuration. It opens and starts nothing.
func New(cfg Config) (*Keeper, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	k := &Keeper{
		cfg:      cfg,
		log:      cfg.Logger,
		ready:    make(chan struct{}),
		asked:    make(chan struct{}),
		halt:     make(chan struct{}),
		records:  map[string]*record{},
		live:     map[int]*record{},
		sockets:  map[string]*socket{},
		conns:    map[*conn]bool{},
		watchers: map[*conn]bool{},
	}
	k.logs = newLogs(k.log, k.wg.Go)
	return k, nil
}

// Ready returns a channel that is closed when the keeper answers on its socket.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

// Run keeps until ctx is done, a client asks for shutdown, or the process gets TERM or INT; then it stops the node, then
// everything else, and returns nil when nothing is left. It must be called at most once. It fails with the fault
// keeper/running when another keeper has the state directory.
func (k *Keeper) Run(ctx context.Context) error {
	state, err := claim(k.cfg.State)
	if err != nil {
		return err
	}
	defer func() { _ = state.release() }() // the process ends with it
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become child subreaper: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	k.hello = Hello{Protocol: ProtocolVersion, Version: k.cfg.Version, PID: os.Getpid(), BootID: boot, Started: time.Now()}
	// Signals that are caught, unlike ignored ones, are the default again in a child.
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, unix.SIGHUP, unix.SIGPIPE) // a closed terminal or log reader must not end the keeper
	defer signal.Stop(dropped)
	term := make(chan os.Signal, 1) // one is enough to stop
	signal.Notify(term, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(term)
	children := make(chan os.Signal, 1) // one says: look; the reaper looks until there is nothing
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)

	if k.null, err = os.Open(os.DevNull); err != nil {
		return fmt.Errorf("open input of children: %w", err)
	}
	defer k.null.Close()
	if err := k.endLeftovers(); err != nil {
		return err
	}
	if k.notifier, err = newNotifier(k.cfg.State); err != nil {
		return err
	}
	defer func() { _ = k.notifier.close() }() // the process ends with it
	listener, err := listenPrivate("unix", SocketPath(k.cfg.State))
	if err != nil {
		return errors.Join(fmt.Errorf("listen for clients: %w", err), k.notifier.close())
	}

	var base sync.WaitGroup // what runs until every process has ended
	ended := make(chan struct{})
	base.Go(func() { k.reap(children, ended) })
	base.Go(func() { k.notifier.serve(k.notified) })
	serving := context.WithoutCancel(ctx) // clients are heard until the last process has ended
	base.Go(func() { k.accept(serving, listener, ended) })
	if len(k.cfg.Node) > 0 {
		k.wg.Go(func() { k.keepNode(ended) })
	}
	close(k.ready)
	k.log.Info("keeper ready", "state", k.cfg.State, "pid", k.hello.PID)

	select {
	case <-ctx.Done():
		k.log.Info("keeper stops", "cause", context.Cause(ctx))
	case <-k.asked:
		k.log.Info("keeper stops", "cause", "asked to")
	case sig := <-term:
		k.log.Info("keeper stops", "cause", sig)
	}
	k.stopProcesses()
	close(ended)
	err = errors.Join(listener.Close(), k.notifier.close(), k.closeSockets(), k.removeIdentities(), state.release())
	k.abandonOutputs()
	k.logs.end()
	k.closeConns() // last: its end tells clients that everything is gone, and a new keeper may start
	base.Wait()    // first, for it adds to wg
	k.wg.Wait()
	return err
}

// accept serves clients until the listener is closed.
func (k *Keeper) accept(ctx context.Context, listener net.Listener, ended <-chan struct{}) {
	for {
		c, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely: others may be closed meanwhile.
			k.log.Warn("client not accepted", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ended:
				return
			}
		}
		k.wg.Go(func() { k.serve(ctx, c) })
	}
}
