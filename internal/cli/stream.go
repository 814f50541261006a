package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/status"
)

func newStream(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "stream", Short: "Look into the streams"}
	ls := &cobra.Command{
		Use:   "ls",
		Short: "List the streams and who reads them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			streams, err := o.streams(cmd, "")
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(streams)
			}
			if len(streams) == 0 {
				o.say("the manifest declares no streams: add one under streams:")
				return nil
			}
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			printStreams(w, streams)
			return w.Flush()
		},
	}
	info := &cobra.Command{
		Use:   "info STREAM",
		Short: "Show one stream",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			streams, err := o.streams(cmd, args[0])
			if err != nil {
				return err
			}
			s := streams[0]
			if o.json {
				return o.printJSON(s)
			}
			w := tabwriter.NewWriter(o.env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "stream\t%s\nframes\t%d\nsequences\t%d to %d\nstored\t%s of %s\n", s.Name, s.Messages, s.FirstSeq, s.LastSeq, size(int64(s.Bytes)), size(s.MaxBytes))
			for _, c := range s.Consumers {
				fmt.Fprintf(w, "reader\t%s: %d frames behind, %d in hand\n", c.Service, c.Lag, c.InFlight)
			}
			return w.Flush()
		},
	}
	cmd.AddCommand(o.jsonFlag(ls), o.jsonFlag(info))
	return cmd
}

// streams returns the project's streams, or the one called name.
func (o *options) streams(cmd *cobra.Command, name string) ([]status.Stream, error) {
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	s, err := client.Status(cmd.Context())
	if err != nil || name == "" {
		return s.Streams, err
	}
	for _, stream := range s.Streams {
		if stream.Name == name {
			return []status.Stream{stream}, nil
		}
	}
	return nil, &fault.Error{Code: "stream/unknown", Kind: fault.Misuse, What: fmt.Sprintf("there is no stream %q", name), Fix: "`hozo stream ls` lists them"}
}
