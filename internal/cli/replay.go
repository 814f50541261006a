package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
)

func newReplay(o *options) *cobra.Command {
	var (
		r                 node.Replay
		from, until, rate string
		resume            bool
	)
	cmd := &cobra.Command{
		Use:   "replay STREAM --to SERVICE|SUBJECT",
		Short: "Send a part of a stream again, to a service or to another subject",
		Long: `Send a part of a stream again. To a service that consumes the stream, live or a shadow of it: only that service gets
the events, beside what is new, under the ids that they have had from the start. To a subject of another stream: copies,
whose header Hozo-Source names the original; where that stream has a key, in the order of the keys.

A sink writes what it is sent again: rows come twice unless the table or the folder is a new one, so replay into a shadow
service with a target of its own. The position is stored as it goes: after Ctrl-C, or when the node was killed, --resume
goes on.

  hozo replay events.raw --from 2h --to enrich              the last two hours
  hozo replay events.raw --from 1000 --until 2000 --to lake2 --rate 500/s
  hozo replay events.raw --to enrich --resume`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(o.streamNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Stream = args[0]
			now := time.Now()
			err := errors.Join(position(cmd, "from", from, now, &r.FromSeq, &r.FromTime), position(cmd, "until", until, now, &r.UntilSeq, &r.UntilTime), replayRate(cmd, rate, &r))
			if err != nil {
				return err
			}
			if r.To == "" {
				return misuse(cmd, errors.New("--to names a service or a subject"))
			}
			r.ID = cmp.Or(r.ID, strings.ReplaceAll(r.Stream+"_to_"+r.To, ".", "-"))
			if resume && (from != "" || until != "") {
				return misuse(cmd, errors.New("--resume goes on with the --from and --until that it began with"))
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			line := newOneLine(o.env)
			done, err := client.Replay(cmd.Context(), r, resume, func(at node.Replayed) { line.set("%s", replayWords(at)) })
			line.clear()
			if errors.Is(err, errInterrupted) {
				o.say("stopped before frame %d of %d; go on with: hozo replay %s --to %s --id %s --resume", done.Next, done.Last, r.Stream, r.To, r.ID)
				return err
			}
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(done)
			}
			verb := "replayed"
			if r.DryRun {
				verb = "would replay"
			}
			o.say("%s %d events in %d frames (%s) of %s to %s", verb, done.Sent, done.Frames, size(int64(done.Size)), r.Stream, r.To)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "sequence of a frame, or a time: 2h ago, 2006-01-02T15:04:05Z; default: the first that is kept")
	flags.StringVar(&until, "until", "", "the last sequence, or a time, written as for --from; default: what is stored now")
	flags.StringVar(&r.To, "to", "", "service that consumes the stream, or subject of another stream")
	flags.StringVar(&rate, "rate", "", "most a second: 500/s events or 10MB/s")
	flags.StringVar(&r.ID, "id", "", "name of this replay, for --resume; default: made of stream and target")
	flags.BoolVar(&resume, "resume", false, "go on where the replay of this name was left")
	flags.BoolVar(&r.DryRun, "dry-run", false, "count, and send nothing")
	o.completeFlag(cmd, "to", o.serviceNames)
	return o.jsonFlag(cmd)
}

// position reads a sequence or a time.
func position(cmd *cobra.Command, flag, text string, now time.Time, seq *uint64, at *time.Time) error {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		*seq = n
		return nil
	}
	var err error
	*at, err = parseTime(cmd, flag, text, now)
	return err
}

// replayRate reads "500/s" or "10MB/s".
func replayRate(cmd *cobra.Command, text string, r *node.Replay) error {
	if text == "" {
		return nil
	}
	number := strings.TrimSuffix(text, "/s")
	if n, err := strconv.ParseFloat(number, 64); err == nil && n > 0 {
		r.Events = n
		return nil
	}
	bytes, err := manifest.ParseBytes(number)
	if err != nil || bytes <= 0 {
		return misuse(cmd, fmt.Errorf("--rate: %q is no rate: write 500/s (events) or 10MB/s", text))
	}
	r.Bytes = float64(bytes)
	return nil
}

// replayWords says how far a replay is, how fast, and how long it will take.
func replayWords(at node.Replayed) string {
	words := fmt.Sprintf("frame %d of %d, %d events", at.Next, at.Last, at.Sent)
	if at.Seconds > 0 && at.Frames > 0 {
		left := float64(at.Last-min(at.Next, at.Last)) / (float64(at.Frames) / at.Seconds)
		words += fmt.Sprintf(", %.0f/s, %s left", float64(at.Sent)/at.Seconds, time.Duration(left*float64(time.Second)).Round(time.Second))
	}
	if at.Waits {
		words += ", waiting for " + at.To
	}
	return words
}
