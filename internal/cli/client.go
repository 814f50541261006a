package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/node"
)

// newClient shows how foreign clients join. It reads their files, so that it works while nothing runs.
func newClient(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client [NAME]",
		Short: "Show how a foreign client joins the bus",
		Long: `Shows how a client that the manifest declares under clients: joins the bus, its password included, or
lists the clients. The file that it names is a context of the nats command line: nats --context FILE pub …`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			state, err := o.stateDir()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			names, err := node.Clients(state)
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			state, err := o.stateDir()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return o.listClients(state)
			}
			f, err := node.ReadClient(state, args[0])
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(f)
			}
			return o.showClient(state, f)
		},
	}
	return o.jsonFlag(cmd)
}

func (o *options) listClients(state string) error {
	names, err := node.Clients(state)
	if err != nil {
		return err
	}
	if o.json {
		return o.printJSON(append([]string{}, names...))
	}
	if len(names) == 0 {
		o.say("the manifest declares no clients: add clients: { NAME: { publishes: [SUBJECT] } } and `hozo apply`")
	}
	for _, name := range names {
		fmt.Fprintln(o.env.Stdout, name)
	}
	return nil
}

func (o *options) showClient(state string, f node.ClientFile) error {
	w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
	file := filepath.Join(state, "clients", f.User+".json")
	fmt.Fprintf(w, "nats\t%s\n", f.URL)
	if f.Hozo.MQTT != "" {
		fmt.Fprintf(w, "mqtt\t%s\n", f.Hozo.MQTT)
	}
	if f.Hozo.WebSocket != "" {
		fmt.Fprintf(w, "websocket\t%s\n", f.Hozo.WebSocket)
	}
	fmt.Fprintf(w, "user\t%s\npassword\t%s\ninbox prefix\t%s\nfile\t%s\n", f.User, f.Password, f.InboxPrefix, file)
	for _, list := range []struct {
		name  string
		words []string
	}{{"publishes", f.Hozo.Publishes}, {"watches", f.Hozo.Watches}, {"calls", f.Hozo.Calls}, {"serves", f.Hozo.Serves}, {"enqueues", f.Hozo.Enqueues}} {
		if len(list.words) > 0 {
			fmt.Fprintf(w, "%s\t%s\n", list.name, strings.Join(list.words, " "))
		}
	}
	for _, from := range f.Hozo.Consumes {
		what := from.Stream
		if len(from.Subjects) > 0 {
			what = strings.Join(from.Subjects, " ")
		}
		fmt.Fprintf(w, "consumes\t%s (stream %s, consumer %s)\n", what, strings.ReplaceAll(from.Stream, ".", "_"), from.Durable)
	}
	return w.Flush()
}
