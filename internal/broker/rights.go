package broker

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/wire"
)

// Rights returns the subjects that the instance of g may publish and subscribe to: what its lines in the manifest
// declare and what the client library needs for them, nothing else. Both lists are sorted and without repeats.
func Rights(g wire.Grant) (publish, subscribe []string) {
	var pub, sub []string
	for _, r := range g.Publish {
		js := wire.StreamName(r.Stream)
		// Ingest asks for the last batch that a producer stored; nothing else that was published can be read back.
		pub = append(pub, r.Subject, "$JS.API.STREAM.INFO."+js, "$JS.API.DIRECT.GET."+js+"."+r.Subject)
	}
	for _, s := range g.Consumes {
		pub = append(pub, consumerRights(wire.StreamName(s.Stream), s.Durable)...)
		if s.Ordered {
			pub = append(pub, recreateRights(wire.StreamName(s.Stream), s.Durable)...)
		}
	}
	if len(g.Consumes) > 0 || len(g.Handles) > 0 {
		pub = append(pub, wire.DeadStream+"."+g.Service+".>", "$JS.API.STREAM.INFO."+wire.StreamName(wire.DeadStream))
	}
	for _, kind := range g.Handles {
		pub = append(pub, consumerRights(wire.StreamName(wire.TaskStream), TaskDurable(kind))...)
	}
	for _, kind := range g.Enqueues {
		pub = append(pub, wire.TaskSubject(kind), "$JS.API.STREAM.INFO."+wire.StreamName(wire.TaskStream))
	}
	pub = append(pub, g.Calls...)
	pub = append(pub, wire.ReportSubject+"."+g.Service+"."+strconv.Itoa(g.Instance))
	sub = append(sub, g.Serves...)
	sub = append(sub, g.Inbox+".>")
	return sortedSet(pub), sortedSet(sub)
}

// TaskDurable is the name of the consumer on hozo.task that all handlers of kind share.
func TaskDurable(kind string) string { return strings.ReplaceAll(kind, ".", "_") }

// consumerRights are the requests of one pull consumer. Acknowledgements have two forms: $JS.ACK.STREAM.CONSUMER.… and,
// behind a feature flag of nats-server, $JS.ACK.DOMAIN.ACCOUNT.STREAM.CONSUMER.…
func consumerRights(js, durable string) []string {
	return []string{
		"$JS.API.STREAM.INFO." + js,
		"$JS.API.CONSUMER.INFO." + js + "." + durable,
		"$JS.API.CONSUMER.MSG.NEXT." + js + "." + durable,
		"$JS.ACK." + js + "." + durable + ".>",
		"$JS.ACK.*.*." + js + "." + durable + ".>",
	}
}

// recreateRights let an ordered reader move its consumer to the position that its own watermark names.
func recreateRights(js, durable string) []string {
	return []string{
		"$JS.API.CONSUMER.CREATE." + js + "." + durable,
		"$JS.API.CONSUMER.CREATE." + js + "." + durable + ".>", // the filter, when there is exactly one
		"$JS.API.CONSUMER.DELETE." + js + "." + durable,
		"$JS.API.CONSUMER.RESET." + js + "." + durable,
	}
}

func sortedSet(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
