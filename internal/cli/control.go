package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/node"
)

func newStart(o *options) *cobra.Command {
	return o.control("start", "Start stopped services", "started", (*node.Client).Start)
}

func newStop(o *options) *cobra.Command {
	return o.control("stop", "Stop services; they stay stopped until started", "stopped", (*node.Client).Stop)
}

func newRestart(o *options) *cobra.Command {
	cmd := o.control("restart", "Restart services, a few instances at a time", "restarted", (*node.Client).Restart)
	cmd.Long = `Restart replaces the processes of services, as many at a time as rolling says. Where rolling.surge allows it, which is the
default for services that listen, the new process starts beside the old one and takes over when it is ready; the old one
then finishes what it has in hand. A new process that does not get ready is given up: the old one runs on, the rest of
the service is left alone, and the exit status is 1.`
	return cmd
}

func (o *options) control(verb, short, done string, act func(*node.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " SERVICE|INSTANCE…",
		Short:             short,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := act(client, cmd.Context(), name); err != nil {
					return err
				}
				o.say("%s %s", done, name)
			}
			return nil
		},
	}
}

// completeServices offers the names of the manifest's services to the shell.
func (o *options) completeServices(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	m, err := o.load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, len(m.Services))
	for i, s := range m.Services {
		names[i] = s.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
