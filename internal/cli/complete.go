package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/manifest"
)

// complete offers for each argument what its function finds in the manifest; the last function is for all that follow.
func (o *options) complete(each ...func(*manifest.Manifest) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		m, err := o.load()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return each[min(len(args), len(each)-1)](m), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag offers for a flag what find finds in the manifest.
func (o *options) completeFlag(cmd *cobra.Command, name string, find func(*manifest.Manifest) []string) {
	_ = cmd.RegisterFlagCompletionFunc(name, o.complete(find)) // it fails only for a flag that is not there
}

func (*options) serviceNames(m *manifest.Manifest) []string {
	var names []string
	for _, s := range m.Services {
		names = append(names, s.Name)
	}
	return names
}

// userNames are who has a credential: services and foreign clients.
func (o *options) userNames(m *manifest.Manifest) []string {
	names := o.serviceNames(m)
	for _, c := range m.Clients {
		names = append(names, c.Name)
	}
	return names
}

func (*options) streamNames(m *manifest.Manifest) []string {
	var names []string
	for _, s := range m.Streams {
		names = append(names, s.Name)
	}
	return names
}

// subjectNames are all subjects that a manifest names.
func (o *options) subjectNames(m *manifest.Manifest) []string {
	names := o.streamNames(m)
	for _, s := range m.Services {
		for _, r := range s.Publishes {
			names = append(names, r.Subject)
		}
		for _, c := range s.Consumes {
			names = append(names, c.Subject)
		}
		names = append(names, s.Serves...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
