package cli

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/node"
)

func newAccess(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "access", Short: "Show and renew who may do what on the bus"}
	cmd.AddCommand(o.accessExplain(), o.accessRotate())
	return cmd
}

func (o *options) accessExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain SERVICE|CLIENT [SUBJECT]",
		Short: "Say what a service may do, by which line of the manifest, and which line is missing",
		Long: `Say what a service, or a foreign client, may do on the bus, and which line of the manifest gives it each right. It
reads the manifest alone, so the project need not run. With a subject it says whether the service may publish it or
subscribe to it, and if not which line to write.`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: o.complete(o.userNames, o.subjectNames),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := o.load()
			if err != nil {
				return err
			}
			subject := ""
			if len(args) > 1 {
				subject = args[1]
			}
			e, err := node.Explain(m, args[0], subject)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(e)
			}
			if subject != "" {
				return o.printVerdicts(e)
			}
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "RULE\tLINE\tMAY\tSUBJECT\tTO")
			for _, r := range e.Rights {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", rule(r), cmp.Or(r.Line, "-"), r.Action, r.Subject, r.Why)
			}
			return w.Flush()
		},
	}
	return o.jsonFlag(cmd)
}

// rule is what gives a right, in the words of the manifest.
func rule(r node.LineRight) string {
	if r.Key == "" {
		return "everybody"
	}
	return r.Key + ": " + r.Item
}

func (o *options) printVerdicts(e node.Explanation) error {
	paint := newPainter(o.env.Stdout, o.env)
	out := &sticky{w: o.env.Stdout}
	for _, v := range e.Verdicts {
		if !v.Allowed {
			fmt.Fprintf(out, "%s may %s %s %s\n  fix: %s\n", e.Service, paint.red("not"), v.Action, e.Subject, v.Fix)
			continue
		}
		fmt.Fprintf(out, "%s may %s %s\n", e.Service, paint.green(string(v.Action)), e.Subject)
		for _, r := range v.By {
			fmt.Fprintf(out, "  by:  %s (%s) to %s\n", rule(r), cmp.Or(r.Line, "always"), r.Why)
		}
	}
	return out.err
}

func (o *options) accessRotate() *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate [SERVICE|CLIENT…]",
		Short: "Replace credentials now; nothing is restarted and nothing is lost",
		Long: `Replace the passwords of services, or of all, at once; the platform does it by itself every quarter of an
hour. Running services take the new ones without a gap. After a minute the old ones are refused and connections
that still use them are closed.

A foreign client is rotated when it is named, and never by itself: somebody has to carry its new password, which is in its
file (hozo client NAME). The old one is good for --overlap, at once no more with --overlap 0s, and then its connections are
closed.

  hozo access rotate sensor --overlap 24h`,
		ValidArgsFunction: o.complete(o.userNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			done, err := client.Rotate(cmd.Context(), args, overlap)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(done)
			}
			if len(done.Instances)+len(done.Clients) == 0 {
				o.say("no service has a credential")
			}
			if len(done.Instances) > 0 {
				o.say("replaced the credentials of %s; the old ones are refused from %s", strings.Join(done.Instances, ", "), done.Until.Local().Format("15:04:05"))
			}
			if len(done.Clients) > 0 {
				o.say("replaced the passwords of %s; the old ones are refused from %s; hozo client %s shows the new one",
					strings.Join(done.Clients, ", "), done.ClientsUntil.Local().Format(time.DateTime), done.Clients[0])
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", node.DefaultOverlap, "how long the old passwords of foreign clients are still good")
	return o.jsonFlag(cmd)
}
