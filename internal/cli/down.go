package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/node"
)

// downPatience bounds a stop: the longest grace of a deep chain of services stays far below it.
const downPatience = 5 * time.Minute

func newDown(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop everything, last started first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			state, err := o.stateDir()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), downPatience)
			defer cancel()
			return o.down(ctx, client, state)
		},
	}
}

// down stops the project and returns when its keeper is gone. A project that does not run is no error.
func (o *options) down(ctx context.Context, client *node.Client, state string) error {
	k, err := keeper.Dial(ctx, keeper.SocketPath(state))
	if err != nil {
		o.say("nothing runs")
		return nil // no keeper answers: the wish is fulfilled
	}
	defer k.Close()
	if err := client.Down(ctx); err != nil {
		// The node cannot do it in order; the keeper still can stop all.
		o.say("the node does not stop the services in order (%v); the keeper stops them all", err)
		if err := k.Shutdown(ctx); err != nil {
			return err
		}
	}
	select {
	case <-k.Done():
		o.say("stopped")
		return nil
	case <-ctx.Done():
		return &fault.Error{Code: "cli/still-running", What: "the keeper has not ended", Where: keeperLog(state), Err: context.Cause(ctx), Fix: "look at its log; `hozo status` names what still runs"}
	}
}
