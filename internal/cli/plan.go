package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/plan"
)

// exit ends the command with a status of its own; err, if any, is told first.
type exit struct {
	status int
	err    error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// changesPending is the exit status of a plan that holds something to do.
const changesPending = 2

func newPlan(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would do, and do nothing",
		Long: `Plan compares the manifest and the programs that are built with what runs, and lists for each instance what apply
would do and which keys of the manifest are the reason. Values are not shown: they may be secrets.

It builds nothing. A program that was built anew counts as changed ("program changed").

Exit status: 0 nothing to do, 2 there are changes, 1 an error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			steps, err := o.planned(cmd.Context())
			if err == nil {
				err = o.printSteps(steps)
			}
			switch {
			case err != nil:
				return &exit{1, err}
			case len(steps) > 0:
				return &exit{changesPending, nil}
			}
			return nil
		},
	}
	return o.jsonFlag(cmd)
}

// planned returns what an apply of the manifest would do.
func (o *options) planned(ctx context.Context) ([]plan.Step, error) {
	m, err := o.load()
	if err != nil {
		return nil, err
	}
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	return o.stepsTo(ctx, client, m)
}

// stepsTo asks the node; where none runs, everything is to be started.
func (o *options) stepsTo(ctx context.Context, client *node.Client, m *manifest.Manifest) ([]plan.Step, error) {
	steps, err := client.Plan(ctx, m.Path, m.Env)
	if fault.Code(err) != "node/not-running" {
		return steps, err
	}
	steps = nil
	for _, s := range m.Streams {
		steps = append(steps, plan.Step{Op: plan.OpStart, Name: "stream " + s.Name, Reason: "new"})
	}
	for _, s := range m.Services {
		for i := range s.Scale {
			steps = append(steps, plan.Step{Op: plan.OpStart, Name: fmt.Sprintf("%s.%d", s.Name, i+1), Reason: "the project does not run"})
		}
	}
	return steps, nil
}

func (o *options) printSteps(steps []plan.Step) error {
	if o.json {
		return o.printJSON(map[string]any{"steps": append([]plan.Step{}, steps...)})
	}
	_, err := fmt.Fprint(o.env.Stdout, plan.Format(steps))
	return err
}
