package cli

import (
	"context"
	"fmt"
	"slices"
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
	planned := slices.ContainsFunc(instances(s), func(i status.Instance) bool { return !i.Next.IsZero() || i.State == status.Scheduled })
	head := []string{"NAME", "STATE", "PID", "FOR", "RESTARTS", "MEMORY", "LISTENS"}
	if planned {
		head = append(head, "NEXT")
	}
	rows := [][]string{append(head, "")}
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
			row := []string{i.Name, string(i.State), pid, age(now.Sub(i.Since)), strconv.Itoa(i.Restarts), size(i.RSSBytes), strings.Join(listens, " ")}
			if planned {
				row = append(row, due(now, i.Next))
			}
			rows = append(rows, append(row, remark(i)))
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

// due says when an instance runs next: "in 4m30s", or the date when that is more than a day away.
func due(now, next time.Time) string {
	switch d := next.Sub(now); {
	case next.IsZero():
		return ""
	case d < 24*time.Hour:
		return "in " + age(d)
	default:
		return next.Format("2006-01-02 15:04")
	}
}

// remark is why an instance is in its state, what it says of itself and, of one that has ended, how long its run took.
func remark(i status.Instance) string {
	text := why(i)
	if text == "" && i.LastResult != "" && i.PID == 0 {
		text = i.LastResult
	}
	if i.PID == 0 && !i.LastRun.IsZero() && i.State == status.Exited {
		took := time.Duration(i.LastSeconds * float64(time.Second)).Round(time.Millisecond)
		text += fmt.Sprintf("; ran %s at %s", took, i.LastRun.Local().Format("2006-01-02 15:04:05"))
	}
	if i.Overlapping > 0 {
		text = strings.TrimPrefix(fmt.Sprintf("%s; %d more at the same time", text, i.Overlapping), "; ")
	}
	if i.Status != "" {
		text = strings.TrimSpace(text + " " + strconv.Quote(i.Status))
	}
	return text
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
