package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/manifest"
)

func newValidate(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check the manifest and say everything that is wrong with it",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.file = args[0]
			}
			m, err := o.load()
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(map[string]any{"project": m.Project, "file": m.Path, "env": m.Env, "streams": len(m.Streams), "services": len(m.Services)})
			}
			_, err = fmt.Fprintf(o.env.Stdout, "%s is valid: project %s, %d services, %d streams\n", m.Path, m.Project, len(m.Services), len(m.Streams))
			return err
		},
	}
	return o.jsonFlag(cmd)
}

func newSchema(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of hozo.yaml, for your editor",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			schema, err := manifest.Schema()
			if err != nil {
				return err
			}
			_, err = o.env.Stdout.Write(schema)
			return err
		},
	}
}
