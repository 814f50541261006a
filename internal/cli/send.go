package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/feed"
)

func newSend(o *options) *cobra.Command {
	var (
		to    string
		quiet bool
		cfg   feed.Config
	)
	cmd := &cobra.Command{
		Use:   "send FILE|URL|-",
		Short: "Feed NDJSON (plain, gzip or zstd) to an ingest service",
		Long: `Send cuts the lines of its input into batches, posts them to an ingest service and repeats what was not
answered. Every batch carries the pair (producer, number), so a repeat is never stored twice.

With --producer the pairs of a second run over the same input are those of the first: what was stored is not stored again.`,
		Example: "  hozo send events.json.gz\n  hozo send https://data.gharchive.org/2015-01-01-0.json.gz\n  tail -F app.ndjson | hozo send - --to http://127.0.0.1:8080",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			endpoint, err := o.ingestURL(cmd.Context(), to)
			if err != nil {
				return err
			}
			return o.send(cmd.Context(), args[0], endpoint, cfg, quiet)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "ingest service by name or http address (default: the project's only one)")
	flags.StringVar(&cfg.Producer, "producer", "", "name of this sender (default: a new one every time)")
	flags.IntVarP(&cfg.Connections, "connections", "c", 4, "batches on their way at once")
	flags.DurationVar(&cfg.PatientFor, "patience", 0, "how long to repeat a batch that the service cannot take (default: for ever)")
	flags.BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return o.jsonFlag(cmd)
}

// ingestURL turns --to into the address to post to.
func (o *options) ingestURL(ctx context.Context, to string) (string, error) {
	if strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "https://") {
		u, err := url.Parse(to)
		if err != nil {
			return "", &fault.Error{Code: "send/bad-url", Kind: fault.Misuse, What: "the address is malformed", Where: to, Err: err}
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = "/v1/ingest"
		}
		return u.String(), nil
	}
	client, err := o.client()
	if err != nil {
		return "", err
	}
	snapshot, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	address := ""
	for _, s := range snapshot.Services {
		if s.Builtin != "ingest" || (to != "" && s.Name != to) {
			continue
		}
		for _, a := range s.Listen {
			found, address = append(found, s.Name), a
			break
		}
	}
	switch len(found) {
	case 1:
		return "http://" + address + "/v1/ingest", nil
	case 0:
		return "", &fault.Error{Code: "send/no-ingest", Kind: fault.Misuse, What: "the project runs no such ingest service", Where: to, Fix: "name one with --to, or add a service with builtin: ingest"}
	default:
		return "", &fault.Error{Code: "send/which-ingest", Kind: fault.Misuse, What: "the project runs several ingest services: " + strings.Join(found, ", "), Fix: "name one with --to"}
	}
}

// sent is what send prints at the end.
type sent struct {
	feed.Progress
	Seconds    float64         `json:"seconds"`
	MBps       float64         `json:"mb_per_second"`
	Rejections []feed.Rejected `json:"rejections,omitempty"`
}

func (o *options) send(ctx context.Context, source, endpoint string, cfg feed.Config, quiet bool) (err error) {
	in, err := feed.Open(ctx, source, o.env.Stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	f := feed.New(endpoint, cfg)
	start := time.Now()
	var sendErr error
	o.watch(quiet || o.json, func() { sendErr = f.Send(ctx, in) }, func() string {
		return progressLine(f.Progress(), in, time.Since(start))
	})
	s := sent{Progress: f.Progress(), Seconds: time.Since(start).Seconds(), Rejections: f.Rejections()}
	s.MBps = float64(s.Bytes) / 1e6 / s.Seconds
	if o.json {
		return errors.Join(sendErr, o.printJSON(s))
	}
	for _, r := range s.Rejections {
		o.say("line %d rejected: %s [%s]", r.Line, r.Reason, r.Code)
	}
	if more := s.Rejected - int64(len(s.Rejections)); more > 0 {
		o.say("… and %d more rejected", more)
	}
	_, err = fmt.Fprintf(o.env.Stdout, "sent %s in %.1fs (%.1f MB/s): %d accepted, %d rejected, %d retries, %d repeats recognised\n",
		size(s.Bytes), s.Seconds, s.MBps, s.Accepted, s.Rejected, s.Retries, s.Duplicates)
	return errors.Join(sendErr, err)
}
