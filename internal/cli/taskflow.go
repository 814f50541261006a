package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
)

var flowStates = []string{"running", "done", "failed", "cancelled"}

// taskFlow looks after workflows.
func (o *options) taskFlow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "flow", Short: "Look after workflows: tasks that wait for each other",
		Long: `Look after workflows. A task of one is a task as any other: hozo task ls lists it, and when it is dead, hozo task retry has
its workflow go on.`,
	}
	cmd.AddCommand(o.flowLs(), o.flowShow(), o.flowCancel())
	return cmd
}

func (o *options) flowLs() *cobra.Command {
	var f node.FlowFilter
	cmd := &cobra.Command{
		Use: "ls", Short: "List workflows, those that have ended too while they are kept", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.State != "" && !slices.Contains(flowStates, f.State) {
				return &fault.Error{Code: "task/bad-state", Kind: fault.Misuse, What: fmt.Sprintf("%q is no state of a workflow", f.State), Where: "--state", Fix: "name one of: " + strings.Join(flowStates, " ")}
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			list, err := client.Flows(cmd.Context(), f)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(list)
			}
			if len(list.Flows) == 0 {
				o.say("there are no such workflows: ended ones are known only while their Keep lasts")
				return nil
			}
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tNAME\tSTATE\tDONE\tSTARTED\tFAILED AT")
			for _, one := range list.Flows {
				done := 0
				for _, t := range one.Tasks {
					if t.State == "done" || t.State == "skipped" {
						done++
					}
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%d/%d\t%s\t%s\n", one.ID, one.Name, one.State, done, len(one.Tasks), one.Started.Local().Format(time.DateTime), one.Failed)
			}
			if list.More {
				o.say("there may be more: choose with --name or --state, or raise --limit")
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&f.Name, "name", "", "only workflows with this name")
	cmd.Flags().StringVar(&f.State, "state", "", "only workflows in this state: "+strings.Join(flowStates, ", "))
	cmd.Flags().IntVar(&f.Limit, "limit", 100, "most lines")
	o.completeFlag(cmd, "state", func(*manifest.Manifest) []string { return flowStates })
	return o.jsonFlag(cmd)
}

func (o *options) flowShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Print the tasks of a workflow, each below what it waits for", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			list, err := client.Flows(cmd.Context(), node.FlowFilter{ID: args[0]})
			if err != nil {
				return err
			}
			if len(list.Flows) == 0 {
				return &fault.Error{Code: "task/unknown", What: "nothing is known of the workflow, or no longer", Where: args[0], Fix: "`hozo task flow ls` lists them"}
			}
			flow := list.Flows[0]
			if o.json {
				return o.printJSON(flow)
			}
			state := flow.State
			if flow.State == "failed" && !flow.Ended {
				state = "failed, and goes on where it can"
			}
			o.say("%s %s is %s, started %s by %s", flow.Name, flow.ID, state, flow.Started.Local().Format(time.DateTime), flow.By)
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			printFlow(w, flow.Tasks)
			return w.Flush()
		},
	}
	return o.jsonFlag(cmd)
}

// printFlow writes tasks as a tree: each below the last that it waits for, the others of which are named.
func printFlow(w io.Writer, tasks []node.FlowTask) {
	below := map[int][]int{}
	for i, t := range tasks {
		at := -1
		if len(t.After) > 0 {
			at = slices.Max(t.After)
		}
		below[at] = append(below[at], i)
	}
	var write func(at int, indent string)
	write = func(at int, indent string) {
		for n, i := range below[at] {
			t := tasks[i]
			branch, inner := "├─ ", "│  "
			if n == len(below[at])-1 {
				branch, inner = "└─ ", "   "
			}
			if at < 0 {
				branch, inner = "", ""
			}
			note := t.Error
			var others []string
			for _, o := range t.After {
				if o != at {
					others = append(others, tasks[o].Name)
				}
			}
			switch {
			case note != "":
			case t.OnFailure:
				note = "when one of these fails: " + strings.Join(append(others, tasks[at].Name), " ")
			case len(others) > 0:
				note = "after " + strings.Join(others, " ") + " too"
			case t.Progress > 0 || t.Note != "":
				note = fmt.Sprintf("%d%% %s", t.Progress, t.Note)
			}
			fmt.Fprintf(w, "%s%s%s\t%s\t%s\t%s\n", indent, branch, t.Name, t.State, t.Kind, note)
			write(i, indent+inner)
		}
	}
	write(-1, "")
}

func (o *options) flowCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "Cancel a workflow: what runs ends, and what waits never begins", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			if err := client.CancelFlow(cmd.Context(), args[0]); err != nil {
				return err
			}
			o.say("%s is cancelled", args[0])
			return nil
		},
	}
}
