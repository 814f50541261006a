package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/node"
)

func newRun(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "run SERVICE [-- ARGS…]",
		Short: "Run a service's program once, now, and wait for it",
		Long: `Run starts the program of a service once more, as its user, with its environment and in its folder, passes its output
through and exits with its exit status, or 128+n when signal n ended it. What stands after -- is added to its
arguments. It is no instance of the service: nothing restarts it, and hooks and needs play no part. Ctrl-C kills it.

Both its standard output and its standard error come out as standard output; its standard input is empty.`,
		Example:           "  hozo run migrate\n  hozo run report -- --month 2026-01",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			return o.runOnce(cmd, client, args[0], args[1:])
		},
	}
}

func (o *options) runOnce(cmd *cobra.Command, client *node.Client, service string, args []string) error {
	var output *os.File
	defer func() {
		if output != nil {
			_ = output.Close() // only read
		}
	}()
	code, err := client.Run(cmd.Context(), service, args, func(path string) error {
		if output == nil {
			file, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // nothing was written yet
			}
			if err != nil {
				return err
			}
			output = file
		}
		_, err := io.Copy(o.env.Stdout, output)
		return err
	})
	if err != nil {
		return err
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}
