// Command classify is the first stage of the firehose: it says of each event what kind of act it is.
package main

import (
	"context"
	"errors"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/tidwall/gjson"
)

var (
	raw        = bus.NewTopic[[]byte]("events.raw")
	classified = bus.NewTopic[[]byte]("events.classified")
)

func main() { hozo.Main(hozo.Stage(raw, classify)) }

// classify puts the event's class in front of its other fields. An event without a type is parked.
func classify(_ context.Context, e bus.Event[[]byte], out *bus.Out) error {
	kind := gjson.GetBytes(e.Data, "type").String()
	if kind == "" {
		return bus.Reject("classify/no-type", errors.New("the event has no type"))
	}
	return out.Publish(classified.Subject(), []byte(`{"class":"`+class(kind)+`",`), e.Data[1:])
}

func class(kind string) string {
	switch kind {
	case "PushEvent", "CreateEvent", "DeleteEvent", "ReleaseEvent", "PullRequestEvent", "PullRequestReviewCommentEvent", "CommitCommentEvent":
		return "code"
	case "WatchEvent", "ForkEvent":
		return "interest"
	case "IssuesEvent", "IssueCommentEvent", "GollumEvent":
		return "talk"
	default:
		return "admin"
	}
}
