package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy"
	"github.com/hozo-dev/hozo/internal/manifest"
)

func newConfig(o *options) *cobra.Command {
	var host string
	var origin bool
	cmd := &cobra.Command{
		Use:   "config -e ENV --host HOST",
		Short: "Show what the manifest comes to for one host",
		Long: `Config shows the variables of a host and what it must have, with the environment laid over the manifest and the host over
both, and every template rendered. With --origin each line ends with where it comes from. It connects to nothing.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return o.config(host, origin) },
	}
	cmd.Flags().StringVar(&host, "host", "", "the host")
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each value stands")
	return o.jsonFlag(cmd)
}

func (o *options) config(name string, origin bool) error {
	m, err := o.load()
	if err != nil {
		return err
	}
	if name == "" {
		return &fault.Error{Code: "cli/no-host", Kind: fault.Misuse, What: "no host was named", Fix: "name one with --host"}
	}
	if _, err := deploy.Hosts(m, []string{name}); err != nil {
		return err
	}
	h, _ := m.Host(name) // deploy.Hosts has found it
	vars := maps.Clone(m.Vars)
	if vars == nil {
		vars = map[string]string{}
	}
	maps.Copy(vars, h.Vars)
	if o.json {
		return o.printJSON(map[string]any{"host": h.Name, "addr": h.Addr, "roles": h.Roles, "vars": vars, "resources": append([]manifest.HostResource{}, h.Resources...)})
	}
	var b strings.Builder
	line := func(text, place string) {
		if origin {
			text = fmt.Sprintf("%-50s  # %s", text, place)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	line("host: "+h.Name, m.Place("hosts", h.Name))
	line("addr: "+h.Addr, m.Place("hosts", h.Name, "addr"))
	line("roles: all "+strings.Join(h.Roles, " "), m.Place("hosts", h.Name, "roles"))
	line("vars:", m.Place("vars"))
	for _, v := range slices.Sorted(maps.Keys(vars)) {
		place := m.Place("vars", v)
		if _, own := h.Vars[v]; own {
			place = m.Place("hosts", h.Name, "vars", v)
		}
		line("  "+v+": "+vars[v], place)
	}
	line("resources:", m.Place("host"))
	for _, r := range h.Resources {
		line("  "+r.ID(), r.Place)
		for _, k := range slices.Sorted(maps.Keys(r.With)) {
			if k != "digest" {
				line(fmt.Sprintf("    %s: %v", k, r.With[k]), r.Place)
			}
		}
		if r.Local != "" {
			line("    from: "+r.Local, r.Place)
		}
		for text := range strings.Lines(r.Content) {
			if r.Secret {
				text = "(secret)"
			}
			line("    | "+strings.TrimRight(text, "\n"), r.Place)
		}
	}
	_, err = fmt.Fprint(o.env.Stdout, b.String())
	return err
}
