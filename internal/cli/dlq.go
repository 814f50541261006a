package cli

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/node"
)

func newDLQ(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "dlq", Short: "Look after parked events and dead tasks"}
	cmd.AddCommand(o.dlqLs(), o.dlqShow(),
		o.dlqAct("retry", "Send parked events back to the service that parked them", "sent back", (*node.Client).RetryDead),
		o.dlqAct("drop", "Remove parked events for good", "dropped", (*node.Client).DropDead))
	return cmd
}

func (o *options) dlqLs() *cobra.Command {
	var (
		service string
		after   uint64
		limit   int
	)
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List parked events and dead tasks",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			letters, err := client.DeadLetters(cmd.Context(), service, after, limit)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(letters)
			}
			if len(letters) == 0 {
				o.say("nothing is parked")
				return nil
			}
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NUMBER\tSERVICE\tEVENT\tCODE\tBYTES\tERROR")
			for _, l := range letters {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\n", l.Seq, l.Service, l.Event, l.Code, l.Bytes, l.Error)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if len(letters) == limit {
				o.say("there may be more: --after %d", letters[len(letters)-1].Seq)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only what this service parked")
	cmd.Flags().Uint64Var(&after, "after", 0, "only numbers above this one")
	cmd.Flags().IntVar(&limit, "limit", 100, "most lines")
	return o.jsonFlag(cmd)
}

func (o *options) dlqShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NUMBER",
		Short: "Print one parked event with why it was parked",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			seqs, err := numbers(args)
			if err != nil {
				return err
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			l, err := client.DeadLetter(cmd.Context(), seqs[0])
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(l)
			}
			o.say("service %s parked %s (%s) after %s attempts at %s\n%s [%s]", l.Service, l.Event, l.Subject, l.Attempts, l.Time, l.Error, l.Code)
			_, err = fmt.Fprintf(o.env.Stdout, "%s\n", l.Data)
			return err
		},
	}
	return o.jsonFlag(cmd)
}

func (o *options) dlqAct(verb, short, done string, act func(*node.Client, context.Context, node.Selection) (int, error)) *cobra.Command {
	var selection node.Selection
	cmd := &cobra.Command{
		Use:   verb + " NUMBER… | --all [--service NAME]",
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if selection.Seqs, err = numbers(args); err != nil {
				return err
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			n, err := act(client, cmd.Context(), selection)
			if n > 0 {
				o.say("%d %s", n, done)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&selection.All, "all", false, "everything that is parked now")
	cmd.Flags().StringVar(&selection.Service, "service", "", "with --all: only what this service parked")
	return cmd
}

func numbers(args []string) ([]uint64, error) {
	seqs := make([]uint64, len(args))
	for i, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			return nil, &fault.Error{Code: "dlq/bad-number", Kind: fault.Misuse, What: "a parked event has a number", Where: arg, Fix: "`hozo dlq ls` lists the numbers"}
		}
		seqs[i] = n
	}
	return seqs, nil
}
