package supervisor

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// limit brings the process that runs within the limits that are wanted now.
func (o *owner) limit(ctx context.Context) {
	if !o.alive {
		return
	}
	if p, done := o.limitProcess(ctx, o.proc); done {
		o.proc.Limits, o.proc.Unmet, o.limited = p.Limits, p.Unmet, p.Run
	}
}

// limitProcess brings a process of the instance within the limits that are wanted now. No event tells of that: the
// keeper's answer is the last word on the limits, and on nothing else, of which the events tell in their order.
func (o *owner) limitProcess(ctx context.Context, of keeper.Process) (p keeper.Process, done bool) {
	want := keeper.Limits(o.want.Limits)
	if reflect.DeepEqual(want, of.Limits) {
		return of, false
	}
	p, err := o.keeper.Limit(ctx, of.Name, want)
	if err != nil {
		if ctx.Err() == nil {
			o.log.WarnContext(ctx, "limits not changed", "err", err) // it ends just now, or an old keeper does not know how
		}
		return of, false
	}
	return p, p.Run == of.Run
}

// limitedAs is an event's word on the process that runs with the limits that it has now: the event may have been on its
// way when they were changed.
func (o *owner) limitedAs(p keeper.Process) keeper.Process {
	if o.limited == p.Run {
		p.Limits, p.Unmet = o.proc.Limits, o.proc.Unmet
	}
	return p
}

// unmet says which limits of the process are not kept and why, and what would help.
func unmet(p keeper.Process) (why, fix string) {
	if p.Exit != nil || len(p.Unmet) == 0 {
		return "", ""
	}
	var all []string
	for _, u := range p.Unmet {
		all = append(all, u.Limit+": "+u.Why)
	}
	return strings.Join(all, "; "), p.Unmet[0].Fix
}

// starved says how a process ended that the kernel killed for want of memory.
func starved(p keeper.Process) string {
	if m := p.Limits.Memory; m > 0 {
		return "OOM: killed at its memory limit of " + inBytes(m)
	}
	return "OOM: killed because the machine had no memory left"
}

// inBytes is a size as people write it: exact if it is whole MiB, which limits are.
func inBytes(n int64) string {
	const mib, gib = 1 << 20, 1 << 30
	switch {
	case n%gib == 0:
		return fmt.Sprintf("%d GiB", n/gib)
	case n%mib == 0:
		return fmt.Sprintf("%d MiB", n/mib)
	default:
		return fmt.Sprintf("%d B", n)
	}
}
