package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hozo-dev/hozo/internal/node"
)

func newTop(o *options) *cobra.Command {
	var (
		once  bool
		every time.Duration
		by    string
	)
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch what flows: rates, lag, slow readers, problems",
		Long: `Watch what flows, drawn anew every second. When standard output is no terminal it measures one interval, prints
and ends, as with --once.

  ↑ ↓ or j k       choose a service        enter   its instances, and only its streams
  s, S             sort by the next column, or the one before; r turns the order around
  space            hold the picture still
  q or Ctrl-C      end`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return misuse(cmd, errors.New("--every must be at least 100ms"))
			}
			order, ok := columnNamed(by)
			if !ok {
				return misuse(cmd, fmt.Errorf("--sort: there is no column %q; there are %s", by, columnNames()))
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			out, isFile := o.env.Stdout.(*os.File)
			if once || o.json || !isFile || !term.IsTerminal(int(out.Fd())) {
				return o.topOnce(cmd.Context(), client, every, order)
			}
			return o.topScreen(cmd.Context(), client, out, every, order)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "measure one interval, print and end")
	cmd.Flags().DurationVar(&every, "every", time.Second, "interval")
	cmd.Flags().StringVar(&by, "sort", "", "column to sort services by: "+columnNames()+"; default: as in the manifest")
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(columnKeys(), cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return o.jsonFlag(cmd)
}

// topOnce prints what flows in one interval.
func (o *options) topOnce(ctx context.Context, client *node.Client, every time.Duration, order int) error {
	before, err := client.Status(ctx)
	if err != nil {
		return err
	}
	wait := time.NewTimer(every)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-wait.C:
	}
	now, err := client.Status(ctx)
	if err != nil {
		return err
	}
	t := topOf(before, now)
	if o.json {
		return o.printJSON(t)
	}
	p := topPage{top: t, order: order, paint: newPainter(o.env.Stdout, o.env), selected: -1}
	_, err = io.WriteString(o.env.Stdout, p.text())
	return err
}
