package supervisor

import (
	"context"
	"fmt"
	"slices"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// unmet names the first need that is not met, or is empty: "needs broker: starting".
func (b *board) unmet(needs []plan.Need) string {
	for _, n := range needs {
		instances := b.service(n.Service)
		if len(instances) == 0 {
			return fmt.Sprintf("needs %s: there is none", n.Service)
		}
		for _, e := range instances {
			if !meets(e, n.Condition) {
				if n.Condition == plan.Ready {
					return fmt.Sprintf("needs %s: %s", n.Service, e.State)
				}
				return fmt.Sprintf("needs %s %s: %s", n.Service, n.Condition, e.State)
			}
		}
	}
	return ""
}

func meets(e entry, condition string) bool {
	switch condition {
	case plan.Completed:
		return e.completed
	case plan.Started:
		return e.completed || e.State == status.Starting || e.State == status.Ready || e.State == status.Unready
	default:
		return e.State == status.Ready
	}
}

// runs returns the run of each instance that lives of the services after whose restart one that has needs starts again.
func (b *board) runs(needs []plan.Need) map[string]string {
	var runs map[string]string
	for _, n := range needs {
		if !n.Restart {
			continue
		}
		if runs == nil {
			runs = make(map[string]string)
		}
		for _, e := range b.service(n.Service) {
			if e.run != "" {
				runs[e.Name] = e.run
			}
		}
	}
	return runs
}

// follow starts the process again once what it needs so has been started again and is as it needs it. An instance that
// has come or gone since, as by a change of scale, is no restart.
func (o *owner) follow(ctx context.Context) {
	var needs []plan.Need
	for _, n := range o.want.Needs {
		if n.Restart {
			needs = append(needs, n)
		}
	}
	if o.board.unmet(needs) != "" {
		return
	}
	for name, run := range o.board.runs(needs) {
		if before := o.needed[name]; before != "" && before != run {
			o.again, o.rolling = true, false
			o.halt(ctx, "restarts, as "+name+" has")
			return
		}
	}
	// What is new counts from now on.
	o.needed = o.board.runs(needs)
}

// follows says whether the process starts again after another one.
func (o *owner) follows() bool {
	return o.alive && o.goal == goalRun && o.shown.State != status.Stopping &&
		slices.ContainsFunc(o.want.Needs, func(n plan.Need) bool { return n.Restart })
}

// myTurn says whether a changed instance may be replaced: of the instances of its service before it, fewer than width are
// still to be, are being replaced, or cannot work though they are meant to. A new version that does not get ready
// therefore stops the roll, and the rest stays as it was.
func (b *board) myTurn(service, name string, width int) bool {
	ahead := 0
	for _, e := range b.service(service) {
		if e.Name == name {
			return ahead < width
		}
		if e.Change == status.ChangeFailed {
			return false
		}
		resting := e.State == status.Stopped || e.completed
		if e.rolling || e.Change != "" || e.State != status.Ready && !resting {
			ahead++
		}
	}
	return ahead < width
}
