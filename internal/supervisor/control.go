package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// errGone is wrapped by what an owner that has ended answers.
var errGone = errors.New("it is not wanted any more")

func gone(name string) error { return fmt.Errorf("%s: %w", name, errGone) }

// Start starts an instance, or every instance of a service, whatever its policy said before, and waits until each is
// ready or has done its job. It returns an error as soon as one crashes, cannot be started or is stopped; the restart
// policy goes on trying. An instance that runs is left alone.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	targets, err := s.prepare(ctx, name)
	if err != nil {
		return err
	}
	return together(targets, func(spec plan.Spec) error { return s.bringUp(ctx, verbStart, spec) })
}

// Restart replaces the process of an instance by a new one, beside which the old one runs on until the new one can work
// when Rolling.Surge allows it; one that is stopped is started, and for one that waits for another service there is
// nothing to restart: the fault supervisor/waits says so at once. The instances of a service are restarted in order, as
// many at a time as Rolling says; the first that does not get there ends the restart, and the rest is left as it is. A
// new process that does not get ready beside an old one is given up, which the error says.
func (s *Supervisor) Restart(ctx context.Context, name string) error {
	targets, err := s.prepare(ctx, name)
	if err != nil {
		return err
	}
	return inTurn(targets, targets[0].Rolling.Width(), func(spec plan.Spec) error { return s.bringUp(ctx, verbRestart, spec) })
}

// Stop stops an instance, or every instance of a service, and waits until it is gone, its tree included. It stays
// stopped until Start or Restart; with Config.Stopped the next supervisor of the same keeper
// leaves it so, too.
func (s *Supervisor) Stop(ctx context.Context, name string) error {
	targets, err := s.targets(ctx, name)
	if err != nil {
		return err
	}
	return together(targets, func(spec plan.Spec) error { return s.takeDown(ctx, spec.Name, true) })
}

// StopAll stops every instance, each service after all that need it, the rest at the same time, and waits. Errors of
// instances are joined; they do not keep the others from being stopped. The
// next supervisor starts them again.
func (s *Supervisor) StopAll(ctx context.Context) error {
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	specs := slices.Clone(s.specs)
	s.mu.Unlock()
	return inOrder(specs, func(name string) error { return s.takeDown(ctx, name, false) })
}

// prepare finds what name means and opens the sockets that it needs.
func (s *Supervisor) prepare(ctx context.Context, name string) ([]plan.Spec, error) {
	targets, err := s.targets(ctx, name)
	if err != nil {
		return nil, err
	}
	release, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return targets, s.sockets.open(ctx, targets[0])
}

// targets returns the instance, or the instances of the service, of that name.
func (s *Supervisor) targets(ctx context.Context, name string) ([]plan.Spec, error) {
	if err := s.awaitReady(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var targets []plan.Spec
	var services []string
	for _, spec := range s.specs {
		if !slices.Contains(services, spec.Service) {
			services = append(services, spec.Service)
		}
		if spec.Name == name || spec.Service == name {
			targets = append(targets, spec)
		}
	}
	if len(targets) == 0 {
		return nil, &fault.Error{
			Code: "supervisor/unknown-name", Kind: fault.Misuse,
			What: fmt.Sprintf("there is no service or instance %q", name), Fix: "name one of: " + strings.Join(services, ", "),
		}
	}
	return targets, nil
}

// bringUp gives an owner a start or a restart and waits for what comes of it.
func (s *Supervisor) bringUp(ctx context.Context, v verb, spec plan.Spec) error {
	o := s.owner(spec.Name)
	if o == nil {
		return gone(spec.Name)
	}
	c := &command{verb: v, spec: spec}
	if err := s.send(ctx, o, c); err != nil {
		return err
	}
	if c.waits != "" {
		return &fault.Error{
			Code: "supervisor/waits", What: fmt.Sprintf("%s does not run, it waits: %s", spec.Name, c.waits),
			Fix: "nothing: it starts by itself once that is met; see hozo status",
		}
	}
	var result error
	err := s.until(ctx, func() bool {
		e, ok := s.board.get(spec.Name)
		if !ok {
			result = gone(spec.Name)
			return true
		}
		switch {
		case e.botched > c.botched:
			result = notReplaced(e)
			return true
		case v == verbRestart && e.alive && e.Change != "" && e.Change != status.ChangeFailed:
			return false
		case e.State == status.Ready || e.completed:
			return true
		case e.falls > c.falls || e.State == status.Exited || e.State == status.Failed:
			result = notUp(e)
			return true
		case e.State == status.Stopped:
			result = fmt.Errorf("%s was stopped meanwhile", spec.Name)
			return true
		}
		return false
	})
	return errors.Join(err, result)
}

func notUp(e entry) error {
	return &fault.Error{
		Code: "supervisor/not-up",
		What: fmt.Sprintf("%s is %s: %s", e.Name, e.State, e.Reason), Fix: "read its log: " + e.Log,
	}
}

func notReplaced(e entry) error {
	return &fault.Error{
		Code: "supervisor/not-replaced",
		What: fmt.Sprintf("the new process of %s was given up, the old one (pid %d) runs on: %s", e.Name, e.PID, e.ChangeReason),
		Fix:  "read its log: " + e.Log,
	}
}

// takeDown gives an owner a stop and waits for what comes of it.
func (s *Supervisor) takeDown(ctx context.Context, name string, keep bool) error {
	o := s.owner(name)
	if o == nil {
		return nil
	}
	err := s.send(ctx, o, &command{verb: verbStop, keep: keep})
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	var result error
	err = s.until(ctx, func() bool {
		e, ok := s.board.get(name)
		switch {
		case !ok || e.State == status.Stopped || e.State == status.Exited:
			return true
		case e.State == status.Stopping:
			return false
		case e.State == status.Failed:
			result = notUp(e)
		default:
			result = fmt.Errorf("%s was started meanwhile", name)
		}
		return true
	})
	return errors.Join(err, result)
}

// inTurn calls f for each of specs in order, at most width at the same time. The first error ends it: what has begun is
// waited for, the rest is not begun.
func inTurn(specs []plan.Spec, width int, f func(plan.Spec) error) error {
	errs := make([]error, len(specs))
	slots := make(chan struct{}, width) // one token a call that goes on
	var failed atomic.Bool
	var wg sync.WaitGroup
	for i, spec := range specs {
		slots <- struct{}{}
		if failed.Load() {
			break
		}
		wg.Go(func() {
			errs[i] = f(spec)
			failed.Store(failed.Load() || errs[i] != nil)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// together calls f for each of specs at the same time and joins the errors in their order.
func together(specs []plan.Spec, f func(plan.Spec) error) error {
	errs := make([]error, len(specs))
	var wg sync.WaitGroup
	for i, spec := range specs {
		wg.Go(func() { errs[i] = f(spec) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
