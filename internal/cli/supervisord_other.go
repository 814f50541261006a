//go:build !linux

package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
)

func newSupervisord(*options) *cobra.Command {
	return &cobra.Command{
		Use: "supervisord", Short: "Run a supervisord.conf, unchanged", DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return &fault.Error{
				Code: "supervisord/unsupported", What: "supervisord needs Linux, this is " + runtime.GOOS, Fix: "run Hozo on Linux",
			}
		},
	}
}

func supervisordShim(Env, []string) (int, bool) { return 0, false }

func supervisordTold(error) (int, bool) { return 0, false }
