package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
)

const manifestName = "hozo.yaml"

// manifestPath finds the manifest: the --file flag, or hozo.yaml in the working directory or the nearest folder above.
func (o *options) manifestPath() (string, error) {
	if o.file != "" {
		return o.abs(o.file), nil
	}
	for dir := o.abs("."); ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, manifestName)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", &fault.Error{
				Code: "cli/no-manifest", Kind: fault.Misuse, What: "there is no " + manifestName + " here or in a folder above",
				Where: o.abs("."), Fix: "go to your project, name the file with --file, or write one: see `hozo schema` and examples/firehose/hozo.yaml",
			}
		}
	}
}

func (o *options) abs(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(o.env.Dir, path)
}

func (o *options) load() (*manifest.Manifest, error) {
	path, err := o.manifestPath()
	if err != nil {
		return nil, err
	}
	return manifest.Load(path, o.manifest)
}

// stateDir is where the project's running state lives.
func (o *options) stateDir() (string, error) {
	if o.state != "" {
		return o.abs(o.state), nil
	}
	path, err := o.manifestPath()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(path), ".hozo"), nil
}

// client speaks to the node of the running project.
func (o *options) client() (*node.Client, error) {
	dir, err := o.stateDir()
	if err != nil {
		return nil, err
	}
	return node.NewClient(dir), nil
}

// jsonFlag adds --json to a command that prints data.
func (o *options) jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *options) printJSON(v any) error {
	enc := json.NewEncoder(o.env.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// say writes a line of talk to standard error.
func (o *options) say(format string, args ...any) {
	_, _ = fmt.Fprintf(o.env.Stderr, format+"\n", args...) // a closed stderr has no reader to tell
}
