package supervisor

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"golang.org/x/sys/unix"
)

// ended goes on from a process that is gone.
func (o *owner) ended(ctx context.Context) {
	exit := *o.proc.Exit
	asked, again, verdict := o.shown.State == status.Stopping, o.again, o.verdict
	o.alive, o.again, o.rolling, o.verdict = false, false, false, ""
	o.timer.Stop()
	o.probe.stop()
	o.probe = nil
	up := exit.Time.Sub(o.proc.Started)
	policy := o.want.Restart.Policy
	switch {
	case len(exit.Survivors) > 0 && o.goal != goalRemove:
		// Starting another one beside them would make two incarnations.
		o.falls++
		o.show(ctx, status.Failed, fmt.Sprintf("processes %v of it outlive a kill; end them, then start %s", exit.Survivors, o.name))
	case o.goal != goalRun:
		o.show(ctx, status.Stopped, describe(exit))
	case again:
		o.begin(ctx)
	case verdict != "":
		o.fall(ctx, verdict, up)
	case asked:
		o.begin(ctx)
	case exit.Code == 0 && exit.Signal == 0 && policy != plan.Always:
		o.fine = true
		o.show(ctx, status.Exited, describe(exit))
	default:
		o.fall(ctx, describe(exit), up)
	}
	o.board.rolled(o.name)
}

// fall handles a crash after a run that lasted up.
func (o *owner) fall(ctx context.Context, reason string, up time.Duration) {
	o.falls++
	r := o.want.Restart
	if r.Policy == plan.Never {
		o.show(ctx, status.Exited, reason)
		return
	}
	o.show(ctx, status.Backoff, reason)
	o.timer.Reset(o.backoff.wait(r, up, random()))
}

// describe says how a process ended: "exit status 1", "ended by SIGKILL".
func describe(e keeper.Exit) string {
	switch {
	case e.Signal != 0:
		if name := unix.SignalName(syscall.Signal(e.Signal)); name != "" {
			return "ended by " + name
		}
		return fmt.Sprintf("ended by signal %d", e.Signal)
	case e.Code < 0:
		return "ended, exit status unknown"
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}

func restartsOf(labels map[string]string) int {
	n, err := strconv.Atoi(labels[labelRestarts])
	if err != nil {
		return 0 // a keeper's record without it: it has not been restarted as far as anybody knows
	}
	return n
}
