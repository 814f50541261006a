package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy"
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
	var r remote
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply, or deploy, would do, and do nothing",
		Long: `Plan compares the manifest and the programs that are built with what runs, and lists for each instance what apply
would do and which keys of the manifest are the reason. Values are not shown: they may be secrets.

It builds nothing. A program that was built anew counts as changed ("program changed").

With an environment that has hosts it looks at these over ssh instead, and shows what deploy would do, with a diff for each
file; hosts that differ in the same way stand together. + is made, ~ is changed, - is removed, ! is run, @ is notified.

Exit status: 0 nothing to do, 2 there are changes, 1 an error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := o.load()
			if err != nil {
				return &exit{1, err}
			}
			if len(m.Hosts) > 0 {
				return o.planHosts(cmd.Context(), r)
			}
			steps, err := o.planned(cmd.Context(), m)
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
	r.flags(cmd)
	cmd.Flags().StringVarP(&r.out, "out", "o", "", "save the plan of hosts in this file, for deploy")
	return o.jsonFlag(cmd)
}

// planHosts looks at the hosts of the environment.
func (o *options) planHosts(ctx context.Context, r remote) error {
	cfg, err := o.deployConfig(r)
	if err != nil {
		return &exit{1, err}
	}
	cfg.Plan = true
	plans, _, err := deploy.Run(ctx, cfg)
	if err != nil {
		return &exit{1, err}
	}
	saved := savedPlan{cfg.Project, cfg.Env, plans}
	if r.out != "" {
		text, err := json.MarshalIndent(saved, "", "  ")
		if err == nil {
			err = os.WriteFile(o.abs(r.out), append(text, '\n'), 0o600)
		}
		if err != nil {
			return &exit{1, fmt.Errorf("save the plan: %w", err)}
		}
	}
	if o.json {
		err = o.printJSON(saved)
	} else {
		err = o.printHostPlans(plans)
	}
	switch {
	case err != nil:
		return &exit{1, err}
	case pending(plans):
		return &exit{changesPending, nil}
	}
	return nil
}

// planned returns what an apply of the manifest would do.
func (o *options) planned(ctx context.Context, m *manifest.Manifest) ([]plan.Step, error) {
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
