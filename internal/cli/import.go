package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/supervisord/conf"
	"github.com/hozo-dev/hozo/internal/supervisord/translate"
)

func newImport(o *options) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "import SUPERVISORD.CONF",
		Short: "Write a hozo.yaml that does what a supervisord.conf did",
		Long: `Reads a supervisord.conf and the files it includes, and writes a hozo.yaml with a service for each program.
What Hozo does otherwise, or not at all, stands in it as a comment; nothing is started. To run the file as it is,
with supervisorctl, use hozo supervisord.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			node, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("ask for the host's name: %w", err)
			}
			path := args[0]
			if !filepath.IsAbs(path) {
				path = filepath.Join(o.env.Dir, path)
			}
			c, warnings, err := conf.Load(path, conf.Options{Environ: os.Environ(), NodeName: node})
			for _, w := range warnings {
				fmt.Fprintf(o.env.Stderr, "warning: %s [%s]\n  at:  %s\n  fix: %s\n", w.Text, w.Code, w.Position, w.Fix)
			}
			if err != nil {
				return err
			}
			text := translate.Manifest(c)
			if out == "" {
				_, err := fmt.Fprint(o.env.Stdout, text)
				return err
			}
			if !filepath.IsAbs(out) {
				out = filepath.Join(o.env.Dir, out)
			}
			return writeNew(out, text)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write, which must not be there yet (default: standard output)")
	return cmd
}

// writeNew writes a file that does not exist yet. It may hold secrets that stood in environment=, so it is its owner's.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &fault.Error{Code: "import/exists", Kind: fault.Misuse, What: "there is a file of that name already", Where: path, Fix: "move it away, or name another with -o"}
	}
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
