// Command enrich is the second stage of the firehose: it adds what later queries group by.
package main

import (
	"context"
	"strconv"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/tidwall/gjson"
)

var (
	classified = bus.NewTopic[[]byte]("events.classified")
	enriched   = bus.NewTopic[[]byte]("events.enriched")
)

func main() { hozo.Main(hozo.Stage(classified, enrich)) }

// enrich puts the hour of the event ("2015-01-01T00") and the number of its commits in front of its other fields.
func enrich(_ context.Context, e bus.Event[[]byte], out *bus.Out) error {
	created := gjson.GetBytes(e.Data, "created_at").String()
	hour := created[:min(len(created), len("2015-01-01T00"))]
	commits := gjson.GetBytes(e.Data, "payload.size").Int()

	head := strconv.AppendQuote([]byte(`{"hour":`), hour)
	head = strconv.AppendInt(append(head, `,"commits":`...), commits, 10)
	return out.Publish(enriched.Subject(), append(head, ','), e.Data[1:])
}
