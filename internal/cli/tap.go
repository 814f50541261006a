package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/node"
)

func newTap(o *options) *cobra.Command {
	var (
		limit         int
		sample, where string
	)
	cmd := &cobra.Command{
		Use:   "tap SUBJECT",
		Short: "Print events as they flow by",
		Long: `Print the events of a stream or a live subject as they are published, one a line. Nothing is stored and no reader
is made; what is not shown in time is dropped and counted on standard error. Ctrl-C ends it.

  hozo tap events.raw                                 everything
  hozo tap events.raw -n 5                            the next five
  hozo tap events.raw --sample 1%                     one of a hundred
  hozo tap events.raw --where 'type == "PushEvent"'   a condition as in a route`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(o.subjectNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			share, err := parseShare(sample)
			if err != nil {
				return misuse(cmd, err)
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			shown, enc := 0, json.NewEncoder(o.env.Stdout)
			err = client.Tap(cmd.Context(), node.Tap{Subject: args[0], Sample: share, Where: where}, func(t node.Tapped) bool {
				switch {
				case t.Ready:
					o.say("waiting for events on %s", args[0])
					return true
				case t.Dropped > 0:
					o.say("%d messages were not shown: they came faster", t.Dropped)
					return true
				case o.json:
					err = enc.Encode(t)
				default:
					text := string(t.Data)
					if t.Data == nil {
						text = strconv.Quote(string(t.Bytes))
					}
					_, err = fmt.Fprintf(o.env.Stdout, "%s %s %s\n", t.Time.Local().Format("15:04:05.000"), t.Subject, text)
				}
				shown++
				return err == nil && (limit == 0 || shown < limit)
			})
			if errors.Is(err, errInterrupted) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().IntVarP(&limit, "lines", "n", 0, "end after as many events; 0 is never")
	cmd.Flags().StringVar(&sample, "sample", "", "share of the events that is shown: 1% or 0.01")
	cmd.Flags().StringVar(&where, "where", "", "condition over the event's JSON")
	return o.jsonFlag(cmd)
}

// parseShare reads 1% or 0.01; "" is 0.
func parseShare(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	number, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(number, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share > 0 && share <= 1) {
		return 0, fmt.Errorf("%q is no share: write 1%% or 0.01", text)
	}
	return share, nil
}
