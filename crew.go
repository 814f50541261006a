package hozo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/sdnotify"
	"github.com/hozo-dev/hozo/task"
)

// DefaultGrace is how long a service may take to stop; it is the default stop grace of the manifest.
const DefaultGrace = 10 * time.Second

// goodbye is what is kept of the grace for the last report and the goodbye to the bus.
func goodbye(grace time.Duration) time.Duration { return min(grace/5, 2*time.Second) }

// crew is the members of a Service. lifecycle.Group stops one member after the other; what takes in work must instead
// stop together, so that all of it shares one deadline.
type crew struct {
	service *Service
	grace   time.Duration
	members []*active
	ended   chan *active // one slot a member: nobody blocks on its way out
}

// active is a member and how it does. err is read after done is closed.
type active struct {
	member
	cancel context.CancelCauseFunc // nil before it starts
	done   chan struct{}
	err    error
}

// assemble builds every part. When one fails it releases what the others took.
func (s *Service) assemble(ctx context.Context, parts []Part) (*crew, error) {
	flat, err := s.expand(parts)
	if err != nil {
		return nil, err
	}
	if kind := task.IsolatedKind(); kind != "" {
		flat = slices.DeleteFunc(flat, func(p Part) bool { return p.build != nil && p.kind != kind && !p.isolated })
	}
	c := &crew{service: s, grace: DefaultGrace}
	for _, p := range flat {
		c.grace = cmp.Or(max(p.grace, 0), c.grace)
		s.use = append(s.use, p.use...)
		if p.needsBus && s.conn == nil { // only a With can get here: connect has looked at the others
			_, err := bus.FromEnv(ctx, s.log) // there is no grant: it says so at once
			return nil, err
		}
	}
	members, err := s.build(flat, c.grace)
	if err != nil {
		for _, m := range members {
			if m.discard != nil {
				_ = m.discard() // nobody has used it
			}
		}
		return nil, err
	}
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(a.layer, b.layer) })
	for _, m := range members {
		c.members = append(c.members, &active{member: m, done: make(chan struct{})})
	}
	c.ended = make(chan *active, len(c.members))
	return c, nil
}

func (s *Service) build(parts []Part, grace time.Duration) (members []member, err error) {
	var errs []error
	workers := 0
	for _, p := range parts {
		if p.build == nil {
			continue // a Grace, a Use or a Bus
		}
		m, err := p.build(s, grace-goodbye(grace))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		members = append(members, m)
		workers += m.workers
	}
	if s.conn != nil && task.IsolatedKind() == "" {
		s.conn.Counters().SetWorkers(workers)
		members = append(members, member{name: "reports", layer: layerReports, runner: newFuncRunner(s.conn.RunReports)})
	}
	return members, errors.Join(errs...)
}

// run starts the members, waits for the end and stops them.
func (c *crew) run(ctx context.Context) error {
	var wg sync.WaitGroup
	stopFeeding := c.feed(ctx)
	defer stopFeeding()
	ended, ok := c.start(ctx, &wg)
	if ok {
		c.service.phase.Store(int32(running))
		c.tell(sdnotify.Ready)
		c.service.log.InfoContext(ctx, "service is ready")
		select {
		case <-ctx.Done():
		case ended = <-c.ended:
		}
	}
	c.service.phase.Store(int32(stopping))
	c.tell(sdnotify.Stopping)
	c.service.log.InfoContext(ctx, "service is stopping", "cause", cause(ctx, ended), "grace", c.grace)
	deadline := time.NewTimer(c.grace - goodbye(c.grace)/2)
	defer deadline.Stop()
	if !c.stop(deadline.C) {
		return c.result()
	}
	wg.Wait()
	return c.result()
}

// cause says why the service stops: because a member ended, or because it was asked to.
func cause(ctx context.Context, ended *active) string {
	if ended != nil {
		return ended.name + " ended"
	}
	return context.Cause(ctx).Error()
}

// start starts the members one after the other. When it is not ok the service should stop, because of the member that
// ended or because of ctx.
func (c *crew) start(ctx context.Context, wg *sync.WaitGroup) (ended *active, ok bool) {
	for _, m := range c.members {
		if ctx.Err() != nil {
			return nil, false
		}
		// Members outlive ctx until it is their turn to stop, so their contexts only inherit its values.
		memberCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		m.cancel = cancel
		wg.Go(func() {
			defer func() { c.ended <- m }()
			defer close(m.done)
			m.err = m.runner.Run(memberCtx)
		})
		select {
		case <-m.runner.Ready():
		case early := <-c.ended:
			return early, false
		case <-ctx.Done():
			return nil, false
		}
	}
	return nil, true
}

// stop stops the members, the last layers first. It returns false when the deadline came before they had returned.
func (c *crew) stop(deadline <-chan time.Time) bool {
	for left := c.members; len(left) > 0; {
		from := len(left) - 1
		if left[from].layer >= layerWork { // all that takes in work stops together
			for from > 0 && left[from-1].layer >= layerWork {
				from--
			}
		}
		group := left[from:]
		left = left[:from]
		for _, m := range group {
			m.stop()
		}
		for _, m := range group {
			if m.cancel == nil {
				continue // never started
			}
			select {
			case <-m.done:
			case <-deadline:
				c.abandon(left)
				return false
			}
		}
	}
	return true
}

// abandon tells those that are left when the deadline has come. Reports have no work to finish: they are waited for.
func (c *crew) abandon(left []*active) {
	last := time.NewTimer(closeTimeout)
	defer last.Stop()
	for _, m := range slices.Backward(left) {
		m.stop()
		if m.layer != layerReports || m.cancel == nil {
			continue
		}
		select {
		case <-m.done:
		case <-last.C:
		}
	}
}

func (m *active) stop() {
	switch {
	case m.cancel != nil:
		m.cancel(lifecycle.ErrStopped)
	case m.discard != nil:
		_ = m.discard() // nobody has used it
	}
}

// result joins what went wrong.
func (c *crew) result() error {
	var errs []error
	var hanging []string
	for _, m := range c.members {
		if m.cancel == nil {
			continue
		}
		select {
		case <-m.done:
			if m.err != nil {
				errs = append(errs, named(m.name, m.err))
			}
		default:
			if m.layer != layerReports {
				hanging = append(hanging, m.name)
			}
		}
	}
	if len(hanging) > 0 {
		errs = append(errs, &fault.Error{
			Code: "hozo/drain-timeout", Where: strings.Join(hanging, ", "),
			What: fmt.Sprintf("did not stop within %v", c.grace-goodbye(c.grace)/2),
			Fix:  "let handlers heed their context, or raise the grace with hozo.Grace and stop.grace in hozo.yaml",
		})
	}
	return errors.Join(errs...)
}

// named puts a part's name before each of its errors.
func named(name string, err error) error {
	var all []error
	for _, one := range fault.Flatten(err) {
		all = append(all, fmt.Errorf("%s: %w", name, one))
	}
	return errors.Join(all...)
}

// feed pings the watchdog of the platform, if it has one, until the returned function is called: while the service stops
// it lives, too.
func (c *crew) feed(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := sdnotify.Feed(ctx); err != nil {
			c.service.log.Warn("the platform's watchdog is not fed", "error", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// tell notifies the platform. A platform that does not listen is no reason to stop.
func (c *crew) tell(state string) {
	if err := sdnotify.Send(state); err != nil {
		c.service.log.Warn("the platform was not notified", "state", state, "error", err)
	}
}
