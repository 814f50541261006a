package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/status"
)

func newStatus(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, what flows and what is wrong",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(s)
			}
			return o.printStatus(s)
		},
	}
	return o.jsonFlag(cmd)
}

func (o *options) printStatus(s status.Snapshot) error {
	paint := newPainter(o.env.Stdout, o.env)
	out := &sticky{w: o.env.Stdout}
	fmt.Fprintf(out, "%s  %s\n\n", paint.bold(s.Project), paint.dim(s.Manifest))
	var rss int64
	for _, p := range s.Platform {
		rss += p.RSSBytes
		fmt.Fprintf(out, "%s %s (pid %d, %s)   ", p.Name, paintState(paint, p.State), p.PID, size(p.RSSBytes))
	}
	fmt.Fprintf(out, "together %s\n\n", size(rss))
	if err := o.table(s.Time, s); err != nil {
		return err
	}
	fmt.Fprintln(out)

	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tEVENTS IN\tEVENTS OUT\tPARKED\tTASKS\tBUSY")
	for _, service := range s.Services {
		t := service.Traffic
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.0f%%\n", service.Name, t.EventsIn, t.EventsOut, t.Parked, t.Tasks, t.Busy*100)
	}
	fmt.Fprintln(w)
	printStreams(w, s.Streams)
	printQueues(w, s.Queues)
	if err := w.Flush(); err != nil {
		return err
	}
	for _, stream := range s.Streams {
		if stream.Dropped > 0 {
			fmt.Fprintf(out, "\ndropped:  stream %s has dropped its %d oldest frames\n", stream.Name, stream.Dropped)
		}
	}
	for _, service := range s.Services {
		for _, topic := range slices.Sorted(maps.Keys(service.Traffic.Overflow)) {
			fmt.Fprintf(out, "\ndropped:  %s has dropped %d events of %s\n", service.Name, service.Traffic.Overflow[topic], topic)
		}
		if sc := service.Scaling; sc != nil {
			fmt.Fprintf(out, "\nscaling:  %s has %d instances by %s (manifest: %s)", service.Name, sc.Wanted, sc.By, sc.Declared)
			if sc.By == "load" && sc.Reason != "" {
				fmt.Fprintf(out, ": %s", sc.Reason)
			}
			if sc.Last != "" {
				fmt.Fprintf(out, "; %s ago %s", age(s.Time.Sub(sc.Since)), sc.Last)
			}
			fmt.Fprintln(out)
		}
	}
	if s.Saturated != "" {
		fmt.Fprintf(out, "\nbottleneck: %s\n", paint.yellow(s.Saturated))
	}
	for _, p := range s.Problems {
		fmt.Fprintf(out, "\n%s %s [%s]\n  fix: %s\n", paint.red("problem:"), p.Title, p.Code, p.Fix)
	}
	return out.err
}

func printStreams(w io.Writer, streams []status.Stream) {
	fmt.Fprintln(w, "STREAM\tFRAMES\tSTORED\tLIMIT\tSURVIVES\tREADERS")
	for _, stream := range streams {
		var readers []string
		for _, c := range stream.Consumers {
			readers = append(readers, fmt.Sprintf("%s (%d behind%s)", c.Service, c.Lag+uint64(c.InFlight), shares(c)))
		}
		limit := "none"
		if stream.MaxBytes > 0 {
			limit = size(stream.MaxBytes)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", stream.Name, stream.Messages, size(int64(stream.Bytes)), limit, durability(stream), strings.Join(readers, ", "))
	}
}

// shares says how the partitions of a stream are shared out among the instances that read it in the order of its keys.
func shares(c status.Consumer) string {
	if len(c.Partitions) == 0 {
		return ""
	}
	of := map[int]int{}
	for _, p := range c.Partitions {
		of[p.Instance]++
	}
	var parts []string
	for _, instance := range slices.Sorted(maps.Keys(of)) {
		who := fmt.Sprintf(".%d", instance)
		if instance == 0 {
			who = "nobody"
		}
		parts = append(parts, fmt.Sprintf("%s: %d", who, of[instance]))
	}
	return fmt.Sprintf("; %d partitions, %s", len(c.Partitions), strings.Join(parts, ", "))
}

// durability says what an acknowledgement of a stream survives, and what that has cost lately: the median and the 99th
// percentile of a sync, and how many it served.
func durability(s status.Stream) string {
	if s.Sync == nil {
		return s.Durability
	}
	return fmt.Sprintf("%s (sync %.2g/%.2g ms, %.0f/s)", s.Durability, s.Sync.P50Millis, s.Sync.P99Millis, s.Sync.PerSecond)
}

// printQueues prints nothing when there are none.
func printQueues(w io.Writer, queues []status.Queue) {
	if len(queues) == 0 {
		return
	}
	fmt.Fprintln(w, "\nQUEUE\tWAITING\tHELD\tSCHEDULED\tRUNNING\tDEAD\tOLDEST")
	for _, q := range queues {
		name := q.Name
		if q.Paused {
			name += " (paused)"
		}
		oldest := time.Duration(q.OldestSeconds * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\n", name, q.Waiting, q.Held, q.Scheduled, q.Running, q.Dead, oldest)
	}
}

// sticky keeps the first error of a Writer, so that a page of Fprintf needs one check.
type sticky struct {
	w   io.Writer
	err error
}

func (s *sticky) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}
