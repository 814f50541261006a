//go:build linux

package supervisord

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// Version is the Supervisor whose behaviour this daemon has, which is what clients are told.
const Version = "4.2.5"

// apiVersion is the version of the XML-RPC interface; supervisorctl speaks to no other.
const apiVersion = "3.0"

// Config is what a Daemon runs.
type Config struct {
	Conf *conf.Config
	// Load reads the configuration again, for reloadConfig.
	Load func() (*conf.Config, error)
	// First is false when the daemon has restarted itself.
	First bool
	// Started is called once, when the sockets are open and before the first child: the moment to go into the background.
	// Nil does nothing.
	Started func(*Daemon) error
	// Notes are for the beginning of the log.
	Notes []Note
}

// Note is a line for the main log from before there was one.
type Note struct {
	Level conf.Level
	Text  string
}

// Daemon runs the programs of a configuration. Make it with New and run it once.
type Daemon struct {
	cfg     Config
	conf    *conf.Config
	log     *mainlog
	growth  growth
	spawner *spawner
	methods map[string]method

	calls     chan func()   // to the loop
	closed    chan struct{} // when the loop has ended
	wg        sync.WaitGroup
	followers sync.WaitGroup // of logs, over HTTP

	// What follows belongs to the loop.

	mood     Mood
	groups   []*group                 // in the order they were added
	known    []conf.Group             // as read last; not applied before add or update
	autoLogs map[*conf.Group]autoLogs // of the groups in known and in groups
	children map[int]*process
	serial   int // of the last event
	version  int // grows with every change, so that a turn knows when it is over
	ticks    ticks
	pending  []*pendingCall

	stopping     bool // listeners have been told
	stopGroups   []*group
	reportedStop time.Time
	finished     bool
}

// New opens the log of a daemon. Close follows Run.
func New(cfg Config) (*Daemon, error) {
	d := &Daemon{
		cfg:      cfg,
		conf:     cfg.Conf,
		calls:    make(chan func()),
		closed:   make(chan struct{}),
		methods:  methods(),
		mood:     MoodRunning,
		known:    cfg.Conf.Groups,
		children: map[int]*process{},
		autoLogs: map[*conf.Group]autoLogs{},
		serial:   -1,
	}
	var err error
	if d.log, err = openMainlog(cfg.Conf.Supervisord, d.growth.wrote); err != nil {
		return nil, err
	}
	for _, n := range cfg.Notes {
		d.log.logf(n.Level, "%s", n.Text)
	}
	return d, nil
}

// Run starts the programs and keeps them until the daemon is asked to end or to restart; it then stops them all and says
// which of the two it was. An error means that it did not begin.
func (d *Daemon) Run(ctx context.Context) (Mood, error) {
	defer d.log.close()
	if !d.conf.Supervisord.NoCleanup {
		d.clearAutoLogs()
	}
	for i := range d.known {
		if err := d.addGroup(&d.known[i]); err != nil {
			return MoodFatal, err
		}
	}
	servers, err := d.openServers(ctx)
	if err != nil {
		return MoodFatal, err
	}
	defer servers.remove()
	signals := make(chan os.Signal, 16) // every kind twice over; a kind that is pending need not be noted again
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR2)
	defer signal.Stop(signals)
	children := make(chan os.Signal, 1) // one is enough to look for all that ended
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	if d.cfg.Started != nil {
		if err := d.cfg.Started(d); err != nil {
			servers.close(ctx)
			return MoodFatal, err
		}
	}
	if d.spawner, err = newSpawner(); err != nil {
		servers.close(ctx)
		return MoodFatal, err
	}
	defer d.spawner.close()
	pidfile := d.writePidfile()
	defer pidfile.remove()
	servers.serve(&d.wg)
	d.loop(ctx, signals, children)
	close(d.closed)
	servers.close(ctx)
	d.wg.Wait()
	return d.mood, nil
}

// loop takes one thing after the other until all has been stopped.
func (d *Daemon) loop(ctx context.Context, signals, children <-chan os.Signal) {
	d.notify(newEvent(eventSupervisorUp, ""))
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := ctx.Done()
	for {
		d.turn()
		if d.finished {
			return
		}
		timer.Reset(d.sleep())
		select {
		case f := <-d.calls:
			f()
		case <-children:
			d.reap()
		case sig := <-signals:
			d.signalled(sig.(unix.Signal))
		case <-timer.C:
		case <-done:
			done = nil
			d.setMood(MoodShutdown)
		}
	}
}

// maxPasses bounds a turn. Moves end after a few: a start, a failure, a delay.
const maxPasses = 100

// turn makes every move that is due.
func (d *Daemon) turn() {
	for range maxPasses {
		before := d.version
		if d.mood < MoodRunning {
			if d.stopStep(); d.finished {
				return
			}
		}
		for _, g := range d.byPriority() {
			g.transition()
		}
		d.tick(time.Now())
		d.runPending()
		if d.version == before {
			return
		}
	}
}

// sleep is how long nothing will be due.
func (d *Daemon) sleep() time.Duration {
	now := time.Now()
	next := d.nextTick(now)
	earlier := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, g := range d.groups {
		for _, p := range g.procs {
			earlier(p.wake())
		}
	}
	if len(d.pending) > 0 {
		earlier(now.Add(stopReportEvery))
	}
	if d.stopping {
		earlier(now.Add(dieReportEvery))
	}
	if next.IsZero() {
		return time.Hour
	}
	return max(next.Sub(now), 0)
}

// changed notes that a turn has something to look at again.
func (d *Daemon) changed() { d.version++ }

// post has the loop call f. Only goroutines other than the loop may call it.
func (d *Daemon) post(f func()) {
	select {
	case d.calls <- f:
	case <-d.closed:
	}
}

// background runs f beside the loop; Run waits for it.
func (d *Daemon) background(f func()) { d.wg.Go(f) }

// notify gives an event to every pool that wants it.
func (d *Daemon) notify(e *event) {
	d.changed()
	for _, g := range d.groups {
		if g.pool == nil {
			continue
		}
		for range g.pool.wants(e) {
			g.pool.accept(e, false)
		}
	}
}

func (d *Daemon) setMood(m Mood) {
	d.mood = m
	d.changed()
}

func (d *Daemon) signalled(sig unix.Signal) {
	switch sig {
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
		d.log.warn("received %s indicating exit request", signalName(sig))
		d.setMood(MoodShutdown)
	case unix.SIGHUP:
		if d.mood == MoodShutdown {
			d.log.warn("ignored %s indicating restart request (shutdown in progress)", signalName(sig))
			return
		}
		d.log.warn("received %s indicating restart request", signalName(sig))
		d.setMood(MoodRestarting)
	case unix.SIGUSR2:
		d.log.info("received %s indicating log reopen request", signalName(sig))
		d.log.info("supervisord logreopen")
		d.log.reopen()
		for _, g := range d.groups {
			for _, p := range g.procs {
				p.reopenLogs()
			}
		}
	}
}

// group returns the group called name, or nil.
func (d *Daemon) group(name string) *group {
	for _, g := range d.groups {
		if g.conf.Name == name {
			return g
		}
	}
	return nil
}

// byPriority is the groups in the order of starting.
func (d *Daemon) byPriority() []*group {
	list := slices.Clone(d.groups)
	slices.SortStableFunc(list, func(a, b *group) int { return a.conf.Priority - b.conf.Priority })
	return list
}

func (d *Daemon) addGroup(c *conf.Group) error {
	g, err := newGroup(d, c)
	if err != nil {
		return err
	}
	d.groups = append(d.groups, g)
	d.notify(groupEvent(eventGroupAdded, c.Name))
	return nil
}

// removeGroup drops a group of which nothing runs.
func (d *Daemon) removeGroup(g *group) bool {
	if len(g.unstopped()) > 0 {
		return false
	}
	d.groups = slices.DeleteFunc(d.groups, func(o *group) bool { return o == g })
	d.notify(groupEvent(eventGroupRemoved, g.conf.Name))
	return true
}

// openLog opens the log of a child.
func (d *Daemon) openLog(path string, maxBytes int64, backups int) (*logfile, error) {
	l, err := openLog(path, maxBytes, backups)
	if err != nil {
		return nil, err
	}
	l.written = d.growth.wrote
	l.gap = func(lost int64, cause error) {
		d.log.error("%d bytes lost that could not be written to %s: %v", lost, path, cause)
	}
	return l, nil
}

func environMap(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			m[k] = v
		}
	}
	return m
}

// pidFile is the path of a pidfile that was written, or "".
type pidFile string

func (d *Daemon) writePidfile() pidFile {
	path := d.conf.Supervisord.Pidfile
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644); err != nil {
		d.log.critical("could not write pidfile %s", path)
		return ""
	}
	d.log.info("supervisord started with pid %d", os.Getpid())
	return pidFile(path)
}

func (p pidFile) remove() {
	if p != "" {
		_ = os.Remove(string(p)) // it is gone or it will be overwritten
	}
}
