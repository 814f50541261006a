package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/status"
)

func newPs(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the instances",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.ps(cmd.Context()) },
	}
	return o.jsonFlag(cmd)
}

func (o *options) ps(ctx context.Context) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	s, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return o.printJSON(instances(s))
	}
	return o.table(s.Time, s)
}

// table prints one line an instance.
func (o *options) table(now time.Time, s status.Snapshot) error {
	paint := newPainter(o.env.Stdout, o.env)
	rows := [][]string{{"NAME", "STATE", "PID", "FOR", "RESTARTS", "MEMORY", "LISTENS", ""}}
	for _, service := range s.Services {
		var listens []string
		for _, address := range service.Listen {
			listens = append(listens, address)
		}
		for _, i := range service.Instances {
			pid := ""
			if i.PID > 0 {
				pid = strconv.Itoa(i.PID)
			}
			rows = append(rows, []string{
				i.Name, string(i.State), pid, age(now.Sub(i.Since)), strconv.Itoa(i.Restarts), size(i.RSSBytes), strings.Join(listens, " "), remark(i),
			})
		}
	}
	if len(rows) == 1 {
		o.say("the manifest has no services yet: add one under services:")
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// Colour goes on after the columns are laid out: escape codes have no width.
	for line := range strings.Lines(b.String()) {
		if fields := strings.Fields(line); len(fields) > 1 {
			line = strings.Replace(line, fields[1], paintState(paint, status.State(fields[1])), 1)
		}
		if _, err := fmt.Fprint(o.env.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// remark is why an instance is in its state, and what it says of itself.
func remark(i status.Instance) string {
	reason := why(i)
	switch {
	case i.Status == "":
		return reason
	case reason == "":
		return strconv.Quote(i.Status)
	default:
		return reason + " " + strconv.Quote(i.Status)
	}
}

// why says what there is to say of an instance: its reason, or how far a change of it is.
func why(i status.Instance) string {
	switch i.Change {
	case "":
		return i.Reason
	case status.ChangeFailed:
		return "change given up: " + i.ChangeReason
	case status.ChangeWaiting:
		return "changed, " + i.ChangeReason
	default:
		return i.ChangeReason
	}
}

func paintState(p painter, s status.State) string {
	switch s {
	case status.Ready:
		return p.green(string(s))
	case status.Failed, status.Backoff, status.Unready:
		return p.red(string(s))
	case status.Pending, status.Starting, status.Stopping:
		return p.yellow(string(s))
	default:
		return string(s)
	}
}

// age writes a duration for a person: its two largest units.
func age(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < 0:
		return "0s"
	case d < time.Hour:
		return d.String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}
