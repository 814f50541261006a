package cli

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
)

func newTask(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "task", Short: "Look after tasks and their queues"}
	cmd.AddCommand(o.taskLs(), o.taskShow(), o.taskCancel(), o.taskPurge(), o.taskCron(), o.taskFlow(),
		o.taskDead("retry", "Run dead tasks of a queue again", "queued again", (*node.Client).RetryDead),
		o.taskDead("drop", "Remove dead tasks of a queue for good", "dropped", (*node.Client).DropDead),
		o.taskPause("pause", "Have a queue start no more tasks; what runs is finished", "%s is paused", (*node.Client).PauseQueue),
		o.taskPause("resume", "Have a queue go on", "%s goes on", (*node.Client).ResumeQueue))
	return cmd
}

// taskFilter adds the flags that choose among tasks to cmd.
func (o *options) taskFilter(cmd *cobra.Command, f *node.TaskFilter) {
	flags := cmd.Flags()
	flags.StringVar(&f.Queue, "queue", "", "only tasks in this queue")
	flags.StringVar(&f.Kind, "kind", "", "only tasks of this kind")
	flags.StringVar(&f.State, "state", "", "only tasks in this state: pending, scheduled, running, retry, done, dead, cancelled or expired")
	o.completeFlag(cmd, "queue", o.queueNames)
	o.completeFlag(cmd, "kind", o.kindNames)
	o.completeFlag(cmd, "state", func(*manifest.Manifest) []string { return taskStates })
}

var taskStates = []string{"pending", "scheduled", "running", "retry", "done", "dead", "cancelled", "expired"}

func checkState(state string) error {
	if state == "" || slices.Contains(taskStates, state) {
		return nil
	}
	return &fault.Error{Code: "task/bad-state", Kind: fault.Misuse, What: fmt.Sprintf("%q is no state of a task", state), Where: "--state", Fix: "see `hozo task ls --help`"}
}

func (o *options) taskLs() *cobra.Command {
	var f node.TaskFilter
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List tasks: what waits or runs, and what is known of those that have ended",
		Long: `List tasks: those in the queues, and those that have ended and whose kind keeps what became of them. A task that runs
for the first time is shown as pending: only its worker knows.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkState(f.State); err != nil {
				return err
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			list, err := client.Tasks(cmd.Context(), f)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(list)
			}
			if len(list.Tasks) == 0 {
				o.say("there are no such tasks: finished ones are known only while Keep of their kind lasts")
				return nil
			}
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tKIND\tSTATE\tATTEMPT\tPROGRESS\tDUE\tERROR")
			for _, t := range list.Tasks {
				due, progress := "", ""
				if !t.Due.IsZero() {
					due = t.Due.Local().Format(time.DateTime)
				}
				if t.Progress > 0 || t.Note != "" {
					progress = fmt.Sprintf("%d%% %s", t.Progress, t.Note)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", t.ID, t.Kind, t.State, t.Attempt, progress, due, t.Error)
			}
			if list.More {
				o.say("there may be more: choose with --queue, --kind or --state, or raise --limit")
			}
			return w.Flush()
		},
	}
	o.taskFilter(cmd, &f)
	cmd.Flags().IntVar(&f.Limit, "limit", 100, "most lines")
	return o.jsonFlag(cmd)
}

func (o *options) taskShow() *cobra.Command {
	var f node.TaskFilter
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Print what is known of one task, and its result",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			f.IDs = args
			list, err := client.Tasks(cmd.Context(), f)
			if err != nil {
				return err
			}
			if len(list.Tasks) == 0 {
				return &fault.Error{Code: "task/unknown", What: "nothing is known of the task", Where: args[0], Fix: "`hozo task ls` lists tasks; finished ones are known only while Keep of their kind lasts"}
			}
			if o.json {
				return o.printJSON(list.Tasks)
			}
			for _, t := range list.Tasks {
				o.say("%s of queue %s is %s, attempt %d, since %s", t.Kind, t.Queue, t.State, t.Attempt, t.Changed.Local().Format(time.DateTime))
				for _, line := range [][2]string{{"worker", t.Worker}, {"code", t.Code}, {"error", t.Error}} {
					if line[1] != "" {
						o.say("%s: %s", line[0], line[1])
					}
				}
				if t.Progress > 0 || t.Note != "" {
					o.say("progress: %d%% %s", t.Progress, t.Note)
				}
				if len(t.Result) > 0 {
					fmt.Fprintf(o.env.Stdout, "%s\n", t.Result)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.Kind, "kind", "", "only a task of this kind")
	o.completeFlag(cmd, "kind", o.kindNames)
	return o.jsonFlag(cmd)
}

func (o *options) taskCancel() *cobra.Command {
	var f node.TaskFilter
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "cancel ID… | --queue NAME…",
		Short: "Cancel tasks, wherever they are: waiting, scheduled or running",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkState(f.State); err != nil {
				return err
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			f.IDs = args
			done, err := client.CancelTasks(cmd.Context(), f, dryRun)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(done)
			}
			verb := "%d cancelled"
			if done.DryRun {
				verb = "%d would be cancelled"
			}
			o.say(verb, done.Count)
			if done.Ended > 0 {
				o.say("%d had ended before", done.Ended)
			}
			if done.More {
				o.say("there may be more: give the command again")
			}
			return nil
		},
	}
	o.taskFilter(cmd, &f)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say how many it would be, and do nothing")
	return o.jsonFlag(cmd)
}

func (o *options) taskPurge() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "purge QUEUE",
		Short: "Remove all tasks from a queue for good",
		Long: `Remove all tasks from a queue for good, without a record of it. What runs is finished, but not run again when its worker
dies. hozo task cancel --queue QUEUE keeps a record of each.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: o.complete(o.queueNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			done, err := client.PurgeQueue(cmd.Context(), args[0], dryRun)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(done)
			}
			verb := "%d removed"
			if done.DryRun {
				verb = "%d would be removed"
			}
			o.say(verb, done.Count)
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say how many it would be, and do nothing")
	return o.jsonFlag(cmd)
}

// taskDead acts on the dead letters of a queue, as hozo dlq does on all.
func (o *options) taskDead(verb, short, done string, act func(*node.Client, context.Context, node.Selection, func(node.Bulk)) (node.Bulk, error)) *cobra.Command {
	var selection node.Selection
	cmd := &cobra.Command{
		Use: verb + " QUEUE", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: o.complete(o.queueNames),
		Long: short + ". hozo dlq ls --stream hozo.tasks.QUEUE lists them, and hozo dlq " + verb + " takes numbers.",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			selection.Stream = "hozo.tasks." + args[0]
			b, err := act(client, cmd.Context(), selection, nil)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(b)
			}
			if b.DryRun {
				o.say("%d would be %s", b.Count, done)
			} else {
				o.say("%d %s", b.Count, done)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&selection.Code, "code", "", "only what died with this code")
	cmd.Flags().StringVar(&selection.Grep, "grep", "", "only what has a match of this regular expression in its error or its arguments")
	cmd.Flags().BoolVar(&selection.DryRun, "dry-run", false, "say how many it would be, and do nothing")
	return o.jsonFlag(cmd)
}

func (o *options) taskPause(verb, short, done string, act func(*node.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " QUEUE", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: o.complete(o.queueNames),
		Long: short + ".\n\nIt lasts over restarts, until it is undone or pause of the queue in the manifest changes.",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			if err := act(client, cmd.Context(), args[0]); err != nil {
				return err
			}
			o.say(done, args[0])
			return nil
		},
	}
}

// queueNames are the queues of a manifest: those that it names, and those of kinds that none of them holds.
func (o *options) queueNames(m *manifest.Manifest) []string {
	var names, held []string
	for _, q := range m.Queues {
		names, held = append(names, q.Name), append(held, q.Kinds...)
	}
	for _, kind := range o.kindNames(m) {
		if !slices.Contains(held, kind) {
			names = append(names, kind)
		}
	}
	slices.Sort(names)
	return names
}

func (*options) kindNames(m *manifest.Manifest) []string {
	var kinds []string
	for _, s := range m.Services {
		kinds = append(kinds, s.Handles...)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
