package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Keeper is the parent of every process of a project. It waits for every child of its process, so nothing else in that
// process may start one.
type Keeper struct {
	cfg       Config
	log       *slog.Logger
	ready     chan struct{}
	readyOnce sync.Once
	asked     chan struct{} // closed by a shutdown request
	ask       sync.Once
	halt      chan struct{} // closed when the stop begins: nothing is spawned any more
	wg        sync.WaitGroup

	// Set by Run before anything else looks.
	hello    Hello
	null     *os.File
	notifier *notifier
	logs     *logs
	groups   *groups
	census   census
	clients  net.Listener
	link     *link         // nil: there is no standby
	unlinked chan struct{} // closed when the link has ended
	awaited  sync.Map      // by key of an entry: the channel to close once the standby has closed it
	over     chan struct{} // closed when every process has ended

	mu       sync.Mutex // also held over fork and over reaping, so no wait status is lost or stolen
	stopping bool
	base     map[string]int     // descriptors that the standby has too, by key
	renewal  string             // path of the binary that this process is to become
	standby  Hello              // of the standby, as far as it has said
	records  map[string]*record // by name
	live     map[int]*record    // by pid, until it is reaped
	sockets  map[string]*socket // by name
	store    fdStore
	conns    map[*conn]bool
	watchers map[*conn]bool // those of conns that asked for events
	ledger   ledger
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
		unlinked: make(chan struct{}),
		over:     make(chan struct{}),
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

func (k *Keeper) isReady() { k.readyOnce.Do(func() { close(k.ready) }) }

// Run keeps until ctx is done, a client asks for shutdown, or the process gets TERM or INT; then it stops the node, then
// everything else, and returns nil when nothing is left. It must be called at most once. It fails with the fault
// keeper/running when another keeper has the state directory.
//
// This process becomes the standby, and Run starts the same program again, whose Run is the keeper; see standby. Run
// may also replace the program of this process, by exec.
func (k *Keeper) Run(ctx context.Context) error {
	role, fd, err := takeRole()
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	k.hello = Hello{
		Protocol: ProtocolVersion, State: StateFormat, Version: k.cfg.Version, PID: os.Getpid(), BootID: boot,
		Started: time.Now(), Executable: self,
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become child subreaper: %w", err)
	}
	switch role {
	case roleActive:
		return k.takeOver(ctx, fd)
	case roleStandby:
		s, err := k.revive(fd)
		if err != nil {
			return err
		}
		return s.run(ctx)
	}
	entries, err := k.prepare()
	if err != nil {
		return err
	}
	if k.cfg.Alone {
		return k.keep(ctx, entries)
	}
	return newStandby(k, entries).run(ctx)
}

// takeOver keeps what the standby hands over on a link.
func (k *Keeper) takeOver(ctx context.Context, fd int) error {
	l, err := openLink(fd)
	if err != nil {
		return err
	}
	k.link, k.hello.Standby = l, os.Getppid()
	entries, err := k.collect()
	if err != nil {
		return err
	}
	return k.keep(ctx, entries)
}

// prepare claims the state directory, ends what a keeper left there that died together with its standby, and opens what
// all keepers from now on share.
func (k *Keeper) prepare() (entries map[string]*entry, err error) {
	entries = map[string]*entry{}
	defer func() {
		if err != nil {
			for _, e := range entries {
				closeAll(e.fds)
			}
		}
	}()
	hold := func(key string, file *os.File, err error) error {
		if err != nil {
			return err
		}
		defer file.Close()
		fd, err := duplicate(file)
		entries[key] = &entry{fds: []int{fd}}
		return err
	}
	lock, err := claim(k.cfg.State)
	if err := hold(keyLock, lock, err); err != nil {
		return entries, err
	}
	if k.groups, err = openGroups(k.cfg.State, k.cfg.Trees, k.log); err != nil {
		return entries, err
	}
	if err := k.endLeftovers(); err != nil {
		return entries, err
	}
	notify, err := listenPrivateNotify(notifyPath(k.cfg.State))
	if err != nil {
		return entries, err
	}
	defer func() { _ = notify.Close() }() // entries has a duplicate
	file, err := notify.File()
	if err := hold(keyNotify, file, err); err != nil {
		return entries, err
	}
	clients, err := listenPrivate(SocketPath(k.cfg.State))
	if err != nil {
		return entries, fmt.Errorf("listen for clients: %w", err)
	}
	defer func() { _ = clients.Close() }() // as above
	file, err = clients.File()
	return entries, hold(keyClients, file, err)
}

// keep is the keeper itself: it goes on from what entries hold.
func (k *Keeper) keep(ctx context.Context, entries map[string]*entry) (err error) {
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

	if k.groups == nil { // it takes over
		if k.groups, err = openGroups(k.cfg.State, k.cfg.Trees, k.log); err != nil {
			return err
		}
	}
	if k.null, err = os.Open(os.DevNull); err != nil {
		return fmt.Errorf("open input of children: %w", err)
	}
	defer k.null.Close()
	if err := k.takeBase(entries); err != nil {
		return err
	}
	if k.standby.State > StateFormat {
		return failure("skew", fmt.Sprintf("the standby is of version %s and holds state of format %d, this keeper reads up to %d",
			k.standby.Version, k.standby.State, StateFormat), "upgrade to a newer version", nil)
	}
	if err := k.store.open(k.withdraw); err != nil {
		return err
	}
	defer k.store.close()
	k.takeRest(entries)
	debug.SetGCPercent(keptHeap)
	slim()
	k.mu.Lock()
	k.saveLocked()
	k.watchForeignLocked()
	k.mu.Unlock()

	var base sync.WaitGroup       // what runs until every process has ended
	nudge(children, unix.SIGCHLD) // there may be zombies already
	base.Go(func() { k.reap(children, k.over) })
	base.Go(func() { k.notifier.serve(k.notified) })
	base.Go(func() { k.watchStored(k.over) })
	serving := context.WithoutCancel(ctx) // clients are heard until the last process has ended
	base.Go(func() { k.accept(serving, k.clients, k.over) })
	if k.link != nil {
		base.Go(k.followStandby)
		_ = k.link.send(parcel{Op: opReady}) // followStandby sees the link's end
	}
	if len(k.cfg.Node) > 0 {
		k.wg.Go(func() { k.keepNode(k.over) })
	}
	k.isReady()
	k.log.Info("keeper ready", "state", k.cfg.State, "pid", k.hello.PID, "standby", k.hello.Standby, "trees", k.groups.trees)

	select {
	case <-ctx.Done():
		k.log.Info("keeper stops", "cause", context.Cause(ctx))
	case <-k.asked:
		k.log.Info("keeper stops", "cause", "asked to")
	case sig := <-term:
		k.log.Info("keeper stops", "cause", sig)
	}
	k.stopProcesses()
	close(k.over)
	k.store.end()
	err = errors.Join(k.clients.Close(), k.notifier.close(), k.closeSockets(), k.removeIdentities(), k.leave())
	k.abandonOutputs()
	k.logs.end()
	k.groups.remove()
	k.closeConns() // last: its end tells clients that everything is gone, and a new keeper may start
	base.Wait()    // first, for it adds to wg
	k.wg.Wait()
	return err
}

// leave gives up everything that the standby has too, and the state directory.
func (k *Keeper) leave() error {
	err := os.Remove(SocketPath(k.cfg.State))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if k.link != nil {
		if k.link.send(parcel{Op: opBye}) == nil {
			select {
			case <-k.unlinked: // it has closed all it had
			case <-time.After(linkTime):
			}
		}
		err = errors.Join(err, k.link.close())
	}
	err = errors.Join(err, releaseLock(k.base[keyLock]))
	for _, fd := range k.base {
		closeAll([]int{fd})
	}
	return err
}

// nudge puts a signal into a channel of one, unless another waits there already.
func nudge(signals chan os.Signal, sig os.Signal) {
	select {
	case signals <- sig:
	default:
	}
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
