package supervisor

import (
	"context"
	"strings"
	"sync"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
)

// A side is a process beside an instance: a hook, or a run that overlaps another. Its name is that of the instance, an @
// and what it is; the keeper knows it as it knows any other, so it outlives the supervisor and is found again.

// labelSide marks a side: for a hook the run of the instance that it is for.
const labelSide = "side"

func sideName(instance, what string) string { return instance + "@" + what }

// sideLog is where a side writes: one file has one writer. It is bounded as the log of the instance is.
func sideLog(l plan.Log, what string) keeper.Log {
	own := keeperLog(l)
	if base, ok := strings.CutSuffix(own.Path, ".log"); ok {
		own.Path = sideName(base, what) + ".log"
	} else if own.Path != "" {
		own.Path = sideName(own.Path, what)
	}
	return own
}

// sideOf returns the instance that a side belongs to.
func sideOf(name string) (instance string, isSide bool) {
	instance, _, isSide = strings.Cut(name, "@")
	return instance, isSide
}

// sides holds the keeper's last word on each side of an instance until its owner has time for it.
type sides struct {
	wake chan struct{} // one slot: there is a record

	mu      sync.Mutex // guards records
	records map[string]keeper.Process
}

func newSides() *sides {
	return &sides{wake: make(chan struct{}, 1), records: make(map[string]keeper.Process)}
}

func (s *sides) put(p keeper.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.records[p.Name]; ok && old.Run == p.Run && old.Exit != nil {
		return // nothing follows an exit
	}
	s.records[p.Name] = p
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sides) take() []keeper.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []keeper.Process
	for name, p := range s.records {
		all = append(all, p)
		delete(s.records, name)
	}
	return all
}

// heardSides takes in the keeper's word on the sides of the instance.
func (o *owner) heardSides(ctx context.Context) {
	for _, p := range o.sides.take() {
		if _, isRun := o.lanes[p.Name]; isRun {
			o.laneHeard(ctx, p)
			continue
		}
		if known, ok := o.hooks.records[p.Name]; ok && known.Run == p.Run {
			o.hooks.records[p.Name] = p
			if p.Exit != nil {
				o.hookEnded(ctx, p)
			}
		}
	}
}

// endSides kills what still runs beside an instance that goes for good, and forgets it.
func (o *owner) endSides(ctx context.Context) {
	for _, moment := range []string{plan.BeforeStart, plan.AfterReady, plan.BeforeStop, plan.AfterStop} {
		if _, declared := hookOf(o.want, moment); !declared && len(o.hooks.records) == 0 {
			continue
		}
		name := sideName(o.name, moment)
		_ = o.keeper.Kill(ctx, name)   // it may have ended
		_ = o.keeper.Forget(ctx, name) // one that is still ending is found by the next supervisor
	}
	o.stopLanes(ctx)
}
