package cli

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/status"
)

// fromManifest takes a number that was set by hand back.
const fromManifest = "manifest"

func newScale(o *options) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "scale [SERVICE=N…]",
		Short: "Set how many instances services have, or list it",
		Long: `Scale sets the number of instances of services by hand and waits until they are there. The number lasts over
restarts of the node until SERVICE=manifest takes it back or the manifest's own number changes. Instances that stay are
not touched; those that go finish what they have in hand.

While a number is set by hand, automatic scaling of that service rests. Without arguments, scale lists the numbers and
their reasons.`,
		Example:           "  hozo scale parse=4 other=2\n  hozo scale parse=manifest",
		ValidArgsFunction: o.completeScale,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if len(args) == 0 {
				s, err := client.Status(ctx)
				if err != nil {
					return err
				}
				return o.printScales(s)
			}
			counts, err := parseScales(args)
			if err != nil {
				return err
			}
			steps, err := client.Scale(ctx, counts)
			if err != nil {
				return err
			}
			if err := o.printSteps(steps); err != nil || len(steps) == 0 {
				return err
			}
			return o.settle(ctx, client, timeout, steps)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait until the new instances are ready")
	return o.jsonFlag(cmd)
}

func parseScales(args []string) (map[string]int, error) {
	counts := map[string]int{}
	for _, arg := range args {
		name, value, found := strings.Cut(arg, "=")
		n, err := strconv.Atoi(value)
		if value == fromManifest {
			n, err = 0, nil
		} else if n < 1 {
			found = false
		}
		if !found || err != nil || name == "" {
			return nil, &fault.Error{
				Code: "cli/bad-scale", Kind: fault.Misuse, What: fmt.Sprintf("%q does not say how many instances", arg),
				Fix: "write SERVICE=N with N from 1, or SERVICE=" + fromManifest,
			}
		}
		counts[name] = n
	}
	return counts, nil
}

// scaleRow is a service's line in the list.
type scaleRow struct {
	Service string          `json:"service"`
	Wanted  int             `json:"wanted"`
	Scaling *status.Scaling `json:"scaling,omitempty"`
}

func (o *options) printScales(s status.Snapshot) error {
	rows := make([]scaleRow, 0, len(s.Services))
	for _, service := range s.Services {
		rows = append(rows, scaleRow{service.Name, service.Scale, service.Scaling})
	}
	if o.json {
		return o.printJSON(rows)
	}
	w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tINSTANCES\tMANIFEST\tBY\tREASON")
	for _, r := range rows {
		declared, by, reason := strconv.Itoa(r.Wanted), fromManifest, ""
		if r.Scaling != nil {
			declared, by, reason = r.Scaling.Declared, r.Scaling.By, r.Scaling.Reason
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s\t%d\t%s\t%s\t%s", r.Service, r.Wanted, declared, by, reason), "\t"))
	}
	return w.Flush()
}

// completeScale offers SERVICE= to the shell.
func (o *options) completeScale(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	names, directive := o.completeServices(cmd, args, word)
	for i := range names {
		names[i] += "="
	}
	return names, directive | cobra.ShellCompDirectiveNoSpace
}
