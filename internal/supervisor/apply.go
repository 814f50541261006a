package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
)

// Apply makes specs what is wanted and returns the steps that lead there. It waits for the instances that nobody wants
// any more to be gone; the rest goes on after it returns, and Wait can follow it.
//
// A changed instance that is ready is restarted when those before it in its service have been and are ready again, so a
// version that does not get ready leaves the rest of the service as it was. An instance that somebody stopped stays so,
// changed or not; Start starts it as it is wanted by then.
//
// Sockets come first, all those of a service or none. When one cannot be opened, nothing of that service is started or
// changed, its new instances are Failed with the fault as their reason, and the fault is returned, joined with those of
// other services, beside the steps for everything else. Applying again, or starting the instance, tries it again.
func (s *Supervisor) Apply(ctx context.Context, specs []plan.Spec) ([]plan.Step, error) {
	return s.apply(ctx, specs, false)
}

// Adjust is Apply without a person behind it: a new version that was given up is not tried again.
func (s *Supervisor) Adjust(ctx context.Context, specs []plan.Spec) ([]plan.Step, error) {
	return s.apply(ctx, specs, true)
}

func (s *Supervisor) apply(ctx context.Context, specs []plan.Spec, calm bool) ([]plan.Step, error) {
	if err := check(specs); err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, err
	}
	release, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()

	specs = slices.Clone(specs)
	for i := range specs {
		specs[i] = specs[i].WithDefaults()
	}
	if err := s.finishRemovals(ctx); err != nil {
		return nil, err
	}
	steps := plan.Diff(specs, s.have())
	if err := s.removeUnwanted(ctx, steps); err != nil {
		return steps, err
	}
	errs := []error{s.sockets.keep(ctx, socketNames(specs))}
	opened := make(map[string]bool)
	blocked := make(map[string]string)
	for _, spec := range specs {
		if opened[spec.Service] {
			continue
		}
		opened[spec.Service] = true
		if err := s.sockets.open(ctx, spec); err != nil {
			blocked[spec.Service] = reasonOf(err)
			errs = append(errs, err)
		}
	}
	s.mu.Lock()
	s.specs = specs
	s.mu.Unlock()
	errs = append(errs, s.convey(ctx, specs, steps, blocked, calm))
	steps = slices.DeleteFunc(steps, func(step plan.Step) bool {
		i := slices.IndexFunc(specs, func(w plan.Spec) bool { return w.Name == step.Name })
		return i >= 0 && blocked[specs[i].Service] != ""
	})
	return steps, errors.Join(errs...)
}

// Plan returns the steps that Apply would take, and takes none.
func (s *Supervisor) Plan(ctx context.Context, specs []plan.Spec) ([]plan.Step, error) {
	if err := check(specs); err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, err
	}
	return plan.Diff(specs, s.have()), nil
}

// check refuses specs that cannot be told apart or started.
func check(specs []plan.Spec) error {
	var errs []error
	seen := make(map[string]bool)
	for _, w := range specs {
		switch {
		case w.Name == "" || w.Service == "" || len(w.Argv) == 0:
			errs = append(errs, &fault.Error{
				Code: "supervisor/bad-spec", Kind: fault.Misuse,
				What: fmt.Sprintf("instance %q of service %q has no name, no service or no command", w.Name, w.Service),
				Fix:  "give it all three",
			})
		case seen[w.Name]:
			errs = append(errs, &fault.Error{
				Code: "supervisor/same-name", Kind: fault.Misuse,
				What: fmt.Sprintf("two instances are named %s", w.Name), Fix: "rename one",
			})
		}
		seen[w.Name] = true
	}
	return errors.Join(errs...)
}

// lock waits for the other calls that open and close sockets.
func (s *Supervisor) lock(ctx context.Context) (release func(), err error) {
	select {
	case s.applying <- struct{}{}:
		return func() { <-s.applying }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.done:
		return nil, ErrNotRunning
	}
}

// have lists what exists: what owners show, and what an earlier supervisor left.
func (s *Supervisor) have() []plan.Have {
	var have []plan.Have
	for _, e := range s.board.all() {
		h := plan.Have{Name: e.Name, Hash: e.hash, Hot: e.hot, Running: e.alive, Stopped: e.stopped}
		if e.parts != nil {
			h.Cold, h.HotWas = e.parts.cold, e.parts.hot
		}
		have = append(have, h)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left := len(have)
	for name, processes := range s.found {
		p := s.lineUp(name, processes).current
		have = append(have, plan.Have{
			Name: name, Hash: p.Labels[labelHash], Running: p.Exit == nil, Cold: partsOf(p.Labels), Stopped: s.marks.has(name, p.Run),
		})
	}
	slices.SortFunc(have[left:], func(a, b plan.Have) int { return strings.Compare(a.Name, b.Name) })
	return have
}

// removeUnwanted stops and forgets what steps say, dependents first, and waits for it.
func (s *Supervisor) removeUnwanted(ctx context.Context, steps []plan.Step) error {
	s.mu.Lock()
	before := slices.Clone(s.specs)
	s.mu.Unlock()
	var unwanted []plan.Spec
	var fresh []*owner
	for _, step := range steps {
		if step.Op != plan.OpStop {
			continue
		}
		i := slices.IndexFunc(before, func(w plan.Spec) bool { return w.Name == step.Name })
		if i >= 0 {
			unwanted = append(unwanted, before[i])
			continue
		}
		// Left by an earlier supervisor, which alone knew its specification: it is stopped by the defaults.
		spec := plan.Spec{Name: step.Name, Service: step.Name}.WithDefaults()
		unwanted = append(unwanted, spec)
		if o := s.adopt(spec, ""); o != nil {
			o.goal = goalStop
			fresh = append(fresh, o)
		}
	}
	if err := s.start(ctx, fresh); err != nil {
		return err
	}
	return inOrder(unwanted, func(name string) error {
		o := s.owner(name)
		if o == nil {
			return nil
		}
		return s.remove(ctx, o)
	})
}

// finishRemovals waits for instances whose removal an earlier call began and did not see through.
func (s *Supervisor) finishRemovals(ctx context.Context) error {
	var leaving []*owner
	s.mu.Lock()
	for _, o := range s.owners {
		if o.leaving {
			leaving = append(leaving, o)
		}
	}
	s.mu.Unlock()
	for _, o := range leaving {
		if err := s.remove(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// remove ends an instance and its owner.
func (s *Supervisor) remove(ctx context.Context, o *owner) error {
	s.mu.Lock()
	o.leaving = true
	s.mu.Unlock()
	if err := s.send(ctx, o, &command{verb: verbRemove}); err != nil && !errors.Is(err, errGone) {
		return fmt.Errorf("remove %s: %w", o.name, err)
	}
	select {
	case <-o.done:
	case <-s.done:
		return ErrNotRunning
	case <-ctx.Done():
		return fmt.Errorf("remove %s: %w", o.name, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners[o.name] == o {
		delete(s.owners, o.name)
	}
	return nil
}

// convey gives every spec to its owner; new owners are shown before any of them runs.
func (s *Supervisor) convey(ctx context.Context, specs []plan.Spec, steps []plan.Step, blocked map[string]string, calm bool) error {
	for _, step := range steps {
		if step.Op == plan.OpRestart && !calm {
			s.board.roll(step.Name)
		}
	}
	var fresh []*owner
	var known []plan.Spec
	order := make([]string, len(specs))
	for i, spec := range specs {
		order[i] = spec.Name
		if o := s.adopt(spec, blocked[spec.Service]); o != nil {
			fresh = append(fresh, o)
		} else {
			known = append(known, spec)
		}
	}
	s.board.arrange(order)
	if err := s.start(ctx, fresh); err != nil {
		return err
	}
	var errs []error
	for _, spec := range known {
		if o := s.owner(spec.Name); o != nil {
			errs = append(errs, s.send(ctx, o, &command{verb: verbApply, spec: spec, blocked: blocked[spec.Service], calm: calm}))
		}
	}
	return errors.Join(errs...)
}

// adopt makes an owner for spec, or returns nil when there is one.
func (s *Supervisor) adopt(spec plan.Spec, blocked string) *owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners[spec.Name] != nil {
		return nil
	}
	var o *owner
	aside := s.aside[spec.Name]
	delete(s.aside, spec.Name)
	if left, ok := s.found[spec.Name]; ok {
		l := s.lineUp(spec.Name, left)
		o = s.newOwner(spec, blocked, &l, aside)
		delete(s.found, spec.Name)
	} else {
		o = s.newOwner(spec, blocked, nil, aside)
	}
	s.owners[spec.Name] = o
	return o
}

func (s *Supervisor) lineUp(instance string, processes []keeper.Process) lineup {
	return lineUp(processes, func(run string) bool { return s.marks.has(drainMark(instance), run) })
}

// start shows owners and has Run run them.
func (s *Supervisor) start(ctx context.Context, owners []*owner) error {
	for _, o := range owners {
		o.first(ctx)
	}
	for _, o := range owners {
		// Not given up with ctx: an owner that is known but does not run would never answer.
		select {
		case s.launch <- o:
		case <-s.done:
			return ErrNotRunning
		}
	}
	return nil
}

func (s *Supervisor) owner(name string) *owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners[name]
}
