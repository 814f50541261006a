package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/status"
)

func newWait(o *options) *cobra.Command {
	var (
		until   string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until all services are ready, or all streams are drained",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			if _, err := client.Status(cmd.Context()); err != nil {
				return err
			}
			switch until {
			case "ready":
				return o.awaitReady(cmd.Context(), client, timeout)
			case "drained":
				var drain status.Drain
				behind := ""
				return o.poll(cmd.Context(), timeout, func() (bool, error) {
					s, err := client.Status(cmd.Context())
					if err != nil {
						return false, nil // a node that restarts is asked again; the deadline bounds it
					}
					behind = drain.Behind(s)
					return behind == "", failed(s)
				}, func() error {
					return &fault.Error{Code: "cli/not-drained", What: fmt.Sprintf("not drained after %s: %s", timeout, behind), Fix: "look at `hozo status`; a longer --timeout waits longer"}
				})
			default:
				return &fault.Error{Code: "cli/usage", Kind: fault.Misuse, What: fmt.Sprintf("--for %q is neither ready nor drained", until), Fix: "--for ready or --for drained"}
			}
		},
	}
	cmd.Flags().StringVar(&until, "for", "ready", "what to wait for: ready or drained")
	cmd.Flags().DurationVar(&timeout, "timeout", 90*time.Second, "how long to wait")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"ready", "drained"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	return cmd
}
