package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

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

// dlqFilter adds the flags that choose among dead letters to cmd; the function that it returns reads them.
func (o *options) dlqFilter(cmd *cobra.Command) func() (node.Filter, error) {
	var f node.Filter
	var since, until string
	flags := cmd.Flags()
	flags.StringVar(&f.Service, "service", "", "only what this service parked")
	flags.StringVar(&f.Stream, "stream", "", "only events of this stream; hozo.tasks.QUEUE for tasks")
	flags.StringVar(&f.Code, "code", "", "only what was parked with this code")
	flags.StringVar(&f.ID, "id", "", "only this event: stream:sequence:index")
	flags.StringVar(&f.Grep, "grep", "", "only what has a match of this regular expression in its error or its data")
	flags.StringVar(&since, "since", "", "only what was parked from then on: 10m ago, 2006-01-02T15:04:05Z, '2006-01-02 15:04:05' or 2006-01-02 here")
	flags.StringVar(&until, "until", "", "only what was parked before then")
	o.completeFlag(cmd, "service", o.serviceNames)
	o.completeFlag(cmd, "stream", o.streamNames)
	return func() (node.Filter, error) {
		now := time.Now()
		var err, untilErr error
		f.Since, err = parseTime(cmd, "since", since, now)
		f.Until, untilErr = parseTime(cmd, "until", until, now)
		return f, errors.Join(err, untilErr)
	}
}

func (o *options) dlqLs() *cobra.Command {
	var (
		after uint64
		limit int
	)
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List parked events and dead tasks",
		Long: `List parked events and dead tasks. They are kept for 30 days, at most a million of them; when it is full nothing
is dropped: the services that want to park more wait, and hozo status says so before.`,
		Args: cobra.NoArgs,
	}
	filter := o.dlqFilter(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := filter()
		if err != nil {
			return err
		}
		client, err := o.client()
		if err != nil {
			return err
		}
		letters, err := client.DeadLetters(cmd.Context(), f, after, limit)
		if err != nil {
			return err
		}
		if o.json {
			return o.printJSON(letters)
		}
		if len(letters) == 0 {
			if f == (node.Filter{}) {
				o.say("nothing is parked")
			} else {
				o.say("nothing that is parked is like that")
			}
			return nil
		}
		w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NUMBER\tSERVICE\tEVENT\tCODE\tTRIES\tPARKED\tBYTES\tERROR")
		for _, l := range letters {
			parked := l.Time
			if at, err := time.Parse(time.RFC3339Nano, l.Time); err == nil {
				parked = at.Local().Format(time.DateTime)
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", l.Seq, l.Service, l.Event, l.Code, l.Attempts, parked, l.Bytes, l.Error)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if len(letters) == limit {
			o.say("there may be more: --after %d", letters[len(letters)-1].Seq)
		}
		return nil
	}
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
			for _, name := range slices.Sorted(maps.Keys(l.Header)) {
				o.say("%s: %s", name, strings.Join(l.Header[name], ", "))
			}
			o.say("service %s parked %s (%s) after %s attempts at %s\n%s [%s]", l.Service, l.Event, l.Subject, l.Attempts, l.Time, l.Error, l.Code)
			_, err = fmt.Fprintf(o.env.Stdout, "%s\n", l.Data)
			return err
		},
	}
	return o.jsonFlag(cmd)
}

func (o *options) dlqAct(verb, short, done string, act func(*node.Client, context.Context, node.Selection, func(node.Bulk)) (node.Bulk, error)) *cobra.Command {
	var selection node.Selection
	cmd := &cobra.Command{
		Use:   verb + " NUMBER… | --service NAME… | --all",
		Short: short,
		Long:  short + ".\n\nGiven twice it does its work once: a number that is not there any more has been dealt with before.",
	}
	filter := o.dlqFilter(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if selection.Seqs, err = numbers(args); err != nil {
			return err
		}
		if selection.Filter, err = filter(); err != nil {
			return err
		}
		client, err := o.client()
		if err != nil {
			return err
		}
		shown := newOneLine(o.env)
		b, err := act(client, cmd.Context(), selection, func(b node.Bulk) {
			shown.set("%d %s, looked at %d of %d", b.Count, done, b.Looked, b.Of)
		})
		shown.clear()
		if o.json && err == nil {
			return o.printJSON(b)
		}
		switch {
		case b.DryRun:
			o.say("%d would be %s", b.Count, done)
		case b.Count > 0 || err == nil:
			o.say("%d %s", b.Count, done)
		}
		if b.Gone > 0 {
			o.say("%d had been sent back or dropped before", b.Gone)
		}
		return err
	}
	cmd.Flags().BoolVar(&selection.All, "all", false, "everything that is parked now")
	cmd.Flags().BoolVar(&selection.DryRun, "dry-run", false, "say how many it would be, and do nothing")
	return o.jsonFlag(cmd)
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
