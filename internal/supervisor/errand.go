package supervisor

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
)

// errandPrefix marks the side that is an errand.
const errandPrefix = "run-"

// Errand is a run of a service's program that somebody waits for. It is apart from the instances: they neither wait for
// it nor count it.
type Errand struct {
	Args []string                 // after those of the service
	Log  func(name string) string // path of the file that takes its output, by the name of its process
	// Started is called once it runs, with that path.
	Started func(log string)
}

// RunErrand runs the program of a service once, in the surroundings of its first instance, and returns how it ended. Whatever
// the service needs is taken to be there, and its hooks are not run. When ctx ends first, the whole tree of the
// process is killed.
func (s *Supervisor) RunErrand(ctx context.Context, service string, e Errand) (keeper.Exit, error) {
	targets, err := s.targets(ctx, service)
	if err != nil {
		return keeper.Exit{}, err
	}
	spec := targets[0]
	name := sideName(spec.Name, errandPrefix+strings.ToLower(rand.Text()[:8]))
	exits := make(chan keeper.Process, 1) // one exit
	s.mu.Lock()
	s.errands[name] = exits
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.errands, name)
	}()
	path := e.Log(name)
	_, err = s.keeper.Spawn(ctx, errandSpawn(spec, name, path, e.Args))
	if err != nil {
		return keeper.Exit{}, err
	}
	e.Started(path)
	select {
	case p := <-exits:
		return *p.Exit, s.keeper.Forget(ctx, name)
	case <-s.done:
		return keeper.Exit{}, ErrNotRunning // it runs on; the keeper ends it with everything else
	case <-ctx.Done():
	}
	return keeper.Exit{}, s.killErrand(ctx, name, exits)
}

func errandSpawn(spec plan.Spec, name, log string, args []string) keeper.Spawn {
	return keeper.Spawn{
		Name: name, Argv: slices.Concat(spec.Argv, args), Env: spec.Env, Dir: spec.Dir, UID: spec.UID, GID: spec.GID, Groups: spec.Groups,
		Log: keeper.Log{Path: log}, Labels: map[string]string{labelSide: ""},
	}
}

// killErrand ends an errand that nobody waits for any more.
func (s *Supervisor) killErrand(ctx context.Context, name string, exits <-chan keeper.Process) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := s.keeper.Kill(ctx, name); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	select {
	case <-exits:
		_ = s.keeper.Forget(ctx, name) // a record that stays does no harm: no name comes twice
	case <-ctx.Done():
	}
	return cause
}
