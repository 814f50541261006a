package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func newApply(o *options) *cobra.Command {
	var noBuild bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Bring what runs to what the manifest says, touching nothing else",
		Long: `Apply builds the services, prints what it is going to do as plan does, does it, and waits until every change has
taken effect. Instances that did not change run on. Changes of supervision (restart policy, health, log, needs, scale, …)
restart nothing, and what was stopped by hand stays stopped. Doing it again does nothing.

Where nothing runs, it starts everything, as up -d does. A new version that does not get ready is given up: with
rolling.surge the old one runs on. Then, and when something does not get ready in time, the exit status is 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.apply(cmd.Context(), noBuild, timeout)
		},
	}
	cmd.Flags().BoolVar(&noBuild, "no-build", false, "do not run the build commands")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait until every change has taken effect")
	return o.jsonFlag(cmd)
}

func (o *options) apply(ctx context.Context, noBuild bool, timeout time.Duration) error {
	m, err := o.load()
	if err != nil {
		return err
	}
	state, err := o.stateDir()
	if err != nil {
		return err
	}
	if !noBuild {
		if err := o.build(ctx, m); err != nil {
			return err
		}
	}
	client := node.NewClient(state)
	steps, err := o.stepsTo(ctx, client, m)
	if err != nil {
		return err
	}
	if err := o.printSteps(steps); err != nil {
		return err
	}
	if len(steps) == 0 {
		return nil
	}
	if err := o.bringUp(ctx, client, state, m, nil); err != nil {
		return err
	}
	return o.settle(ctx, client, timeout, steps)
}

// settle waits until the instances of steps, or with nil all, are as they are wanted; it tells each that gets there.
func (o *options) settle(ctx context.Context, client *node.Client, timeout time.Duration, steps []plan.Step) error {
	told := map[string]string{}
	var last status.Snapshot
	return o.poll(ctx, timeout, func() (bool, error) {
		snapshot, err := client.Status(ctx)
		if err != nil {
			return false, nil // a node that restarts is asked again; the deadline bounds it
		}
		last = snapshot
		done := len(instances(snapshot)) > 0
		var errs []error
		for _, i := range touched(snapshot, steps) {
			now := string(i.State)
			switch {
			case i.Change != "":
				now = i.ChangeReason
			case i.Reason != "":
				now += ": " + i.Reason
			}
			if told[i.Name] != now {
				told[i.Name] = now
				o.say("%s %s", i.Name, now)
			}
			if err := changeFailed(i); err != nil {
				errs = append(errs, err)
			}
			done = done && up(i) && i.Change == "" && steady(i, snapshot.Time)
		}
		if len(errs) > 0 {
			return false, errors.Join(errs...)
		}
		return done, nil
	}, func() error {
		var late []string
		for _, i := range touched(last, steps) {
			if !up(i) || i.Change != "" {
				late = append(late, fmt.Sprintf("%s is %s (%s)", i.Name, i.State, strings.TrimSpace(i.Reason+" "+i.ChangeReason)))
			}
		}
		return &fault.Error{
			Code: "cli/not-settled", What: fmt.Sprintf("not every change has taken effect after %s: %s", timeout, strings.Join(late, "; ")),
			Fix: "look at `hozo status` and `hozo logs SERVICE`; the change goes on",
		}
	})
}

// steadyTime is how long an instance must have been ready: without a health check it is ready at once, and a program
// that cannot run at all has ended by then.
const steadyTime = time.Second

func steady(i status.Instance, now time.Time) bool {
	return i.State != status.Ready || now.Sub(i.Since) >= steadyTime
}

// touched returns the instances that steps name.
func touched(s status.Snapshot, steps []plan.Step) []status.Instance {
	var some []status.Instance
	for _, i := range instances(s) {
		for _, step := range steps {
			if step.Name == i.Name {
				some = append(some, i)
				break
			}
		}
	}
	return some
}

// changeFailed says why a change of an instance did not take effect, or is nil.
func changeFailed(i status.Instance) error {
	switch {
	case i.Change == status.ChangeFailed:
		return &fault.Error{
			Code: "cli/change-failed", What: "the new version of " + i.Name + " was given up, the old one runs on: " + i.ChangeReason,
			Where: i.Log, Source: tailFile(i.Log, 10), Fix: "correct it, then `hozo apply` again",
		}
	case i.State == status.Failed || i.State == status.Backoff:
		return &fault.Error{
			Code: "cli/change-failed", What: fmt.Sprintf("%s is in %s: %s", i.Name, i.State, i.Reason),
			Where: i.Log, Source: tailFile(i.Log, 10), Fix: "correct it, then `hozo apply` again; the rest of the service is as it was",
		}
	}
	return nil
}
