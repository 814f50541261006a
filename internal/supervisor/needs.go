package supervisor

import (
	"fmt"

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

// myTurn says whether a changed instance may be restarted: each instance of a service before it has been, and can work
// or is not meant to. A new version that does not get ready therefore stops the roll, and the rest stays as it was.
func (b *board) myTurn(service, name string) bool {
	for _, e := range b.service(service) {
		if e.Name == name {
			return true
		}
		resting := e.State == status.Stopped || e.completed
		if e.rolling || e.State != status.Ready && !resting {
			return false
		}
	}
	return true
}
