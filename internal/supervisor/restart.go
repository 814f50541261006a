package supervisor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
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
	o.leftAs = o.endedAs()
	if o.left(ctx) {
		return
	}
	asked, again, verdict := o.leftAs == status.Stopping && !o.self, o.again, o.verdict
	o.alive, o.again, o.rolling, o.verdict, o.self = false, false, false, "", false
	o.note(exit)
	o.timer.Stop()
	o.unwatch()
	at, up := exit.At, exit.At-o.proc.Since
	if exit.At == 0 || o.proc.Since == 0 { // the record of a keeper that did not know Monotonic yet
		at, up = keeper.Monotonic(), exit.Time.Sub(o.proc.Started)
	}
	policy := o.want.Restart.Policy
	switch {
	case len(exit.Survivors) > 0 && o.goal != goalRemove:
		// Starting another one beside them would make two incarnations.
		o.falls++
		o.show(ctx, status.Failed, fmt.Sprintf("processes %v of it outlive a kill; end them, then start %s", exit.Survivors, o.name))
	case o.goal != goalRun && o.beside != nil:
		o.parting = describe(exit)
		o.show(ctx, status.Stopping, "its predecessor finishes what it has in hand")
	case o.goal != goalRun:
		o.unstore(ctx)
		o.show(ctx, status.Stopped, describe(exit))
	case o.beside != nil && o.beside.role == roleSuccessor:
		o.promote(ctx, describe(exit))
	case again:
		o.begin(ctx)
	case verdict != "":
		o.fall(ctx, verdict, at, up)
	case asked:
		o.begin(ctx)
	case exit.Code == 0 && exit.Signal == 0 && policy != plan.Always:
		o.fine = true
		o.show(ctx, status.Exited, describe(exit))
	default:
		reason := describe(exit)
		if exit.OOM {
			reason = starved(o.proc)
		}
		o.fall(ctx, reason, at, up)
	}
	o.board.rolled(o.name)
	if o.shown.State == status.Exited || o.shown.State == status.Stopped {
		o.due = time.Time{} // its run is over, and a start by a person is not one of the schedule
	}
	o.dequeue(ctx)
}

// fall handles a crash at a moment of keeper.Monotonic, after a run that lasted up.
func (o *owner) fall(ctx context.Context, reason string, at, up time.Duration) {
	o.falls++
	r := o.want.Restart
	if r.Policy == plan.Never {
		o.show(ctx, status.Exited, reason)
		return
	}
	// Counted from the crash, which may be long past when nobody watched.
	switch a := o.backoff.fell(r, at, up, random()); {
	case a.never:
		o.givenUp = true
		o.show(ctx, status.Failed, fmt.Sprintf("%s; given up after %s, until hozo start %s", reason, budget(r), o.name))
	case a.spent:
		o.show(ctx, status.Failed, fmt.Sprintf("%s; after %s it is tried every %s", reason, budget(r), brief(r.RetryAfter)))
		o.timer.Reset(max(0, at+a.after-keeper.Monotonic()))
	default:
		o.show(ctx, status.Backoff, reason)
		o.timer.Reset(max(0, at+a.after-keeper.Monotonic()))
	}
}

func budget(r plan.Restart) string { return fmt.Sprintf("%d starts in %s", r.Budget, brief(r.Window)) }

// brief is d without the zeros that String puts at its end: 5m, not 5m0s.
func brief(d time.Duration) string {
	s := d.String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
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
