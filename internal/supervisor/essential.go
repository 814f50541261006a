package supervisor

import (
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

// endsAll says whether a state is the end of an essential instance for good, and with which status, as a shell would give
// it. A stop that somebody asked for is not; neither is a crash after which it is started again.
func (o *owner) endsAll(state status.State) (ends bool, code int) {
	final := state == status.Exited || state == status.Failed && (o.givenUp || o.want.Restart.Policy == plan.Never)
	if !o.want.Essential || o.goal != goalRun || !final {
		return false, 0
	}
	switch exit := o.proc.Exit; {
	case exit == nil:
		return true, 1 // it has never run
	case exit.Signal != 0:
		return true, 128 + exit.Signal
	case exit.Code < 0 || exit.Code == 0 && !o.fine:
		return true, 1 // unknown, or what ended it was not its process
	default:
		return true, exit.Code
	}
}
