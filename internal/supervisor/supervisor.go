// Package supervisor keeps the instances of a project's services in the state that is wanted: it starts them in order,
// probes them, starts them again when they crash, and stops them in order.
//
// Each instance has one owner goroutine, the only one that asks the keeper to start or stop a process of that name;
// commands and the keeper's events reach it as messages. So there are never two incarnations of one instance, whatever
// is asked for at the same time. Owners tell what they do on a board, and whoever waits for something (a need, a turn,
// a person) is woken by a change of the board: nothing polls.
//
// The processes belong to the keeper. A Supervisor that ends leaves them running, and the next one adopts them.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// Keeper is the parent of the processes, as the supervisor needs it.
type Keeper interface {
	Spawn(ctx context.Context, s keeper.Spawn) (keeper.Process, error)
	Signal(ctx context.Context, name string, sig syscall.Signal, group bool) error
	Kill(ctx context.Context, name string) error
	Limit(ctx context.Context, name string, l keeper.Limits) (keeper.Process, error)
	List(ctx context.Context) ([]keeper.Process, []keeper.Socket, error)
	Forget(ctx context.Context, name string) error
	SetLog(ctx context.Context, name string, l keeper.Log) error
	Listen(ctx context.Context, l keeper.Listen) (keeper.Socket, error)
	Unlisten(ctx context.Context, name string) error
	Unstore(ctx context.Context, name string) error
	Events(ctx context.Context) (<-chan keeper.Event, error)
	Done() <-chan struct{} // closed when the connection is lost
}

// Config is what a Supervisor works with. Keeper is required.
type Config struct {
	Keeper  Keeper
	Stopped string           // path of the file that remembers what a person stopped, for the next supervisor; empty: nothing does
	Ticks   string           // path of the 0600 file that remembers the ticks of schedules, for the next supervisor; empty: nothing does
	Now     func() time.Time // the clock on the wall, which schedules follow; nil is time.Now
	OnEvent func(Event)      // called for each change, in order, from one goroutine; nil drops them. It should return soon.
	Logger  *slog.Logger     // nil discards
}

// Event is a change of an instance.
type Event struct {
	Time     time.Time
	Instance string
	State    status.State
	PID      int
	Reason   string
	Restarts int
	Ended    *Ended // an essential instance has ended for good: everything is to stop

	Change       status.Change // how far a replacement of it is; empty when there is none
	ChangeReason string
}

// Ended says how an essential instance has ended.
type Ended struct {
	Code int // exit status, 128+n for signal n as a shell has it, or 1 when it could not be started
}

var (
	// ErrNotRunning is returned by calls to a Supervisor whose Run has ended.
	ErrNotRunning = errors.New("the supervisor is not running")
	// ErrKeeperLost is returned by Run when the connection to the keeper ends.
	ErrKeeperLost = errors.New("the connection to the keeper is lost")
)

// Supervisor owns the instances of one project. Its methods are safe for concurrent use; they wait for Run to be ready.
type Supervisor struct {
	keeper  Keeper
	onEvent func(Event)
	log     *slog.Logger
	board   *board
	marks   *marks
	ticks   *ticks
	now     func() time.Time
	ready   chan struct{}
	done    chan struct{}
	launch  chan *owner // to Run, which starts and awaits every owner

	// applying serialises Apply; it guards sockets as well.
	applying chan struct{}
	sockets  *sockets

	mu      sync.Mutex
	owners  map[string]*owner
	specs   []plan.Spec                      // as applied last
	found   map[string][]keeper.Process      // processes of an earlier supervisor that no owner has adopted yet, by instance
	aside   map[string][]keeper.Process      // and what ran beside them, see sides.go
	errands map[string]chan<- keeper.Process // by name, until they have ended
}

// New returns a Supervisor that does nothing until Run.
func New(c Config) *Supervisor {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Supervisor{
		keeper:   c.Keeper,
		onEvent:  c.OnEvent,
		log:      c.Logger,
		board:    newBoard(),
		marks:    &marks{path: c.Stopped},
		ticks:    &ticks{path: c.Ticks},
		now:      func() time.Time { return c.Now().Round(0) }, // without its monotonic reading
		ready:    make(chan struct{}),
		done:     make(chan struct{}),
		launch:   make(chan *owner),
		applying: make(chan struct{}, 1), // a mutex whose Lock can be given up
		sockets:  &sockets{keeper: c.Keeper, held: make(map[string]keeper.Socket)},
		owners:   make(map[string]*owner),
		found:    make(map[string][]keeper.Process),
		aside:    make(map[string][]keeper.Process),
		errands:  make(map[string]chan<- keeper.Process),
	}
	return s
}

// Ready is closed once the supervisor knows what runs and takes commands.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Run supervises until ctx is done, and returns nil then; every process runs on. It returns ErrKeeperLost when the
// connection to the keeper ends. It must be called once.
func (s *Supervisor) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var owners, emitter sync.WaitGroup
	over := make(chan struct{})
	defer func() {
		close(s.done)
		cancel(ErrNotRunning)
		owners.Wait()
		close(over) // last, so that everything the owners did is told
		emitter.Wait()
	}()

	events, processes, held, err := s.attach(ctx)
	if err != nil {
		return err
	}
	s.sockets.adopt(held)
	if err := s.marks.load(); err != nil {
		s.log.WarnContext(ctx, "what was stopped is not known, it will be started", "err", err)
	}
	if err := s.ticks.load(); err != nil {
		s.log.WarnContext(ctx, "what schedules have done is not known", "err", err)
	}
	runs := make(map[string]bool)
	for _, p := range processes {
		if instance, isSide := sideOf(p.Name); isSide {
			if _, ours := p.Labels[labelSide]; ours {
				s.mu.Lock()
				s.aside[instance] = append(s.aside[instance], p)
				s.mu.Unlock()
			}
			continue
		}
		if _, ours := p.Labels[labelHash]; ours {
			runs[p.Run] = true
			s.mu.Lock()
			s.found[instanceOf(p)] = append(s.found[instanceOf(p)], p)
			s.mu.Unlock()
		}
	}
	s.marks.keep(func(_, run string) bool { return runs[run] })
	emitter.Go(func() { s.board.emit(over, s.onEvent) })
	close(s.ready)

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.keeper.Done():
			return s.lost(ctx)
		case o := <-s.launch:
			owners.Go(func() { o.run(ctx) })
		case e, ok := <-events:
			if ok {
				s.dispatch(e.Process)
				continue
			}
			if events, err = s.reattach(ctx); err != nil {
				return err
			}
		}
	}
}

// attach subscribes to the keeper's events, then lists what there is, so that nothing falls between the two.
func (s *Supervisor) attach(ctx context.Context) (<-chan keeper.Event, []keeper.Process, []keeper.Socket, error) {
	events, err := s.keeper.Events(ctx)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("subscribe to the keeper's events: %w", err)
	}
	processes, held, err := s.keeper.List(ctx)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("list the keeper's processes: %w", err)
	}
	return events, processes, held, nil
}

// reattach subscribes again after the keeper has dropped a subscriber that fell behind. Owners hear what they missed.
func (s *Supervisor) reattach(ctx context.Context) (<-chan keeper.Event, error) {
	select {
	case <-s.keeper.Done():
		return nil, s.lost(ctx)
	default:
	}
	events, processes, _, err := s.attach(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil // Run sees it next
		}
		return nil, errors.Join(ErrKeeperLost, err)
	}
	for _, p := range processes {
		s.dispatch(p)
	}
	return events, nil
}

func (s *Supervisor) lost(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil // the client was closed because we are asked to stop
	}
	return ErrKeeperLost
}

// dispatch hands the keeper's word on a process to its owner.
func (s *Supervisor) dispatch(p keeper.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if instance, isSide := sideOf(p.Name); isSide {
		if exits := s.errands[p.Name]; exits != nil {
			if p.Exit != nil {
				exits <- p
				delete(s.errands, p.Name)
			}
			return
		}
		if o := s.owners[instance]; o != nil {
			o.sides.put(p)
			return
		}
		for i, old := range s.aside[instance] {
			if old.Run == p.Run && old.Exit == nil {
				s.aside[instance][i] = p
			}
		}
		return
	}
	instance := instanceOf(p)
	if o := s.owners[instance]; o != nil {
		o.inbox.put(p)
		return
	}
	for i, old := range s.found[instance] {
		if old.Run == p.Run && old.Exit == nil {
			s.found[instance][i] = p
		}
	}
}

// Instances returns every instance, in the order of the specs applied last. RSS and CPU are left for the caller.
func (s *Supervisor) Instances() []status.Instance { return s.board.instances() }

// Addresses maps the name of each held socket ("ingest.http") to the address that it is bound to.
func (s *Supervisor) Addresses() map[string]string { return s.sockets.addresses() }

// Wait returns nil once done is true of the instances; it looks again at each change of one. It returns the cause of
// ctx when that ends first, and ErrNotRunning when Run does.
func (s *Supervisor) Wait(ctx context.Context, done func([]status.Instance) bool) error {
	return s.until(ctx, func() bool { return done(s.board.instances()) })
}

// until waits for a condition on the board.
func (s *Supervisor) until(ctx context.Context, met func() bool) error {
	for {
		changed := s.board.changed()
		if met() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return ErrNotRunning
		}
	}
}

// awaitReady waits until Run takes commands.
func (s *Supervisor) awaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.done:
		return ErrNotRunning
	}
}
