package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/node"
)

func (o *options) taskCron() *cobra.Command {
	cmd := &cobra.Command{Use: "cron", Short: "Look at the tasks that are enqueued by the clock"}
	ls := &cobra.Command{
		Use:   "ls",
		Short: "List crons: when each is due next, its last task, and whether a tick waits",
		Long: `List the crons of the manifest. STATE is that of the last task: idle (it has ended), busy (it is in the queue, in hand, or
waits for its next attempt), waiting (it is busy, and a tick waits for its end), paused (the queue is paused: tasks are
enqueued and not begun).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			list, err := client.Crons(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(list)
			}
			if len(list) == 0 {
				o.say("there are no crons: add cron: {NAME: {task: KIND, at: \"0 3 * * *\"}} to the manifest")
				return nil
			}
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tTASK\tWHEN\tNEXT\tLAST\tSTATE\tTASKS\tSKIPPED")
			for _, c := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", c.Name, c.Kind, c.When, shortTime(c.Next), shortTime(c.Last), cronState(c), c.Count, c.Skipped)
			}
			return w.Flush()
		},
	}
	cmd.AddCommand(o.jsonFlag(ls))
	return cmd
}

func cronState(c node.CronStatus) string {
	switch {
	case c.Paused:
		return "paused"
	case !c.Waits.IsZero():
		return "waiting"
	case c.Busy:
		return "busy"
	}
	return "idle"
}

func shortTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
