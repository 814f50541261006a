package broker

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/hozo-dev/hozo/wire"
)

// Action is what a right allows.
type Action string

// The actions that a broker tells apart. Pulling, acknowledging and asking are publishing to it.
const (
	Publish   Action = "publish"
	Subscribe Action = "subscribe"
)

// Right is one subject pattern that an instance may use, and which line of the manifest gives it.
type Right struct {
	Action  Action `json:"action"`
	Subject string `json:"subject"`
	Key     string `json:"key,omitempty"`  // of the service in the manifest: "publishes"; empty for what every instance may
	Item    string `json:"item,omitempty"` // the word under that key: "events.raw"
	Why     string `json:"why"`            // "store events", "acknowledge"
}

// Rights returns the subjects that the instance of g may publish and subscribe to: what its lines in the manifest
// declare and what the client library needs for them, nothing else. Both lists are sorted and without repeats.
func Rights(g wire.Grant) (publish, subscribe []string) { return split(RightsOf(g)) }

// RightsOf returns what [Rights] does with the reason for each, in no useful order; one subject may have several.
func RightsOf(g wire.Grant) []Right {
	var all rights
	all.publishes(g.Publish)
	all.consumes(g.Consumes)
	all.perKey(g)
	if len(g.Consumes) > 0 || len(g.Handles) > 0 {
		key, item := "consumes", ""
		if len(g.Consumes) == 0 {
			key, item = "handles", g.Handles[0]
		} else {
			item = itemOf(g.Consumes[0])
		}
		all.add(Publish, key, item, "park what cannot be handled", wire.DeadStream+"."+g.Service+".>")
		all.add(Publish, key, item, "look whether there is room", "$JS.API.STREAM.INFO."+wire.StreamName(wire.DeadStream))
		if slices.ContainsFunc(g.Consumes, func(s wire.Source) bool { return !s.Ordered }) {
			all.add(Publish, key, item, "put aside what is to be tried later", wire.RetryStream+"."+g.Service+".>")
		}
	}
	all.handles(g)
	all.enqueues(g)
	for _, subject := range g.Calls {
		all.add(Publish, "calls", subject, "ask", subject, wire.EverySubject(subject))
	}
	for _, subject := range g.Live {
		all.add(Publish, "publishes", subject, "send live events", subject)
	}
	for _, subject := range g.Watches {
		all.add(Subscribe, "watches", subject, "hear live events", subject)
	}
	for _, subject := range g.Serves {
		all.add(Subscribe, "serves", subject, "take requests", subject, wire.EverySubject(subject))
	}
	all.own(g)
	return all
}

// rights gathers what single lines of a manifest give.
type rights []Right

func (r *rights) add(action Action, key, item, why string, subjects ...string) {
	for _, subject := range subjects {
		*r = append(*r, Right{Action: action, Subject: subject, Key: key, Item: item, Why: why})
	}
}

func (r *rights) publishes(routes []wire.Route) {
	for _, to := range routes {
		js := wire.StreamName(to.Stream)
		r.add(Publish, "publishes", to.Subject, "look whether there is room", "$JS.API.STREAM.INFO."+js)
		r.commit("publishes", to.Subject, js, to.Power)
		for _, subject := range to.StoredSubjects() {
			r.add(Publish, "publishes", to.Subject, "store events", subject)
			// Ingest asks for the last batch that a producer stored; nothing else that was published can be read back.
			r.add(Publish, "publishes", to.Subject, "read back the last one of it", "$JS.API.DIRECT.GET."+js+"."+subject)
		}
	}
}

func (r *rights) consumes(sources []wire.Source) {
	for _, from := range sources {
		js, item := wire.StreamName(from.Stream), itemOf(from)
		r.commit("consumes", item, js, from.Power)
		for _, reader := range from.Readers() {
			r.consumer("consumes", item, js, reader.Durable)
			if reader.Ordered {
				r.recreate("consumes", item, js, reader.Durable)
			}
		}
	}
}

// perKey gives what sharing out partitions needs: the records of the own service, and fences in what it publishes to.
func (r *rights) perKey(g wire.Grant) {
	for _, from := range g.Consumes {
		if !from.PerKey {
			continue
		}
		item := itemOf(from)
		look := wire.LookSubject(g.Service, from.Stream)
		r.add(Publish, "consumes", item, "share out its partitions", wire.OwnerSubjects(g.Service, from.Stream), look)
		r.add(Publish, "consumes", item, "see who owns them", "$JS.API.DIRECT.GET."+wire.StreamName(wire.OwnerStream))
		r.add(Subscribe, "consumes", item, "see who owns them", look)
		for _, target := range wire.TargetStreams(g.Publish) {
			r.add(Publish, "consumes", item, "keep earlier owners from storing there", wire.FencePrefix(target, g.Service)+"."+wire.StreamName(from.Stream)+".*")
			r.add(Publish, "consumes", item, "see what an earlier owner stored there", "$JS.API.DIRECT.GET."+wire.StreamName(target))
		}
	}
}

// own are the rights of every instance, whatever its lines say.
func (r *rights) own(g wire.Grant) {
	r.add(Publish, "", "", "report on itself", wire.ReportSubject+"."+g.Service+"."+strconv.Itoa(g.Instance))
	r.add(Publish, "", "", "renew its own credential", wire.RenewSubject+"."+g.User)
	r.add(Subscribe, "", "", "get answers, in its own inbox", g.Inbox+".>")
}

// consumer gives the requests of one pull consumer. Acknowledgements have two forms: $JS.ACK.STREAM.CONSUMER.… and,
// behind a feature flag of nats-server, $JS.ACK.DOMAIN.ACCOUNT.STREAM.CONSUMER.…
func (r *rights) consumer(key, item, js, durable string) {
	r.add(Publish, key, item, "find its reader", "$JS.API.STREAM.INFO."+js, "$JS.API.CONSUMER.INFO."+js+"."+durable)
	r.add(Publish, key, item, "pull", "$JS.API.CONSUMER.MSG.NEXT."+js+"."+durable)
	r.add(Publish, key, item, "acknowledge", "$JS.ACK."+js+"."+durable+".>", "$JS.ACK.*.*."+js+"."+durable+".>")
}

// recreate lets an ordered reader move its consumer to the position that its own watermark names.
func (r *rights) recreate(key, item, js, durable string) {
	r.add(Publish, key, item, "place its reader where its watermark is",
		"$JS.API.CONSUMER.CREATE."+js+"."+durable,
		"$JS.API.CONSUMER.CREATE."+js+"."+durable+".>", // the filter, when there is exactly one
		"$JS.API.CONSUMER.DELETE."+js+"."+durable,
		"$JS.API.CONSUMER.RESET."+js+"."+durable)
}

// itemOf is what the manifest says of a source, or the first of several.
func itemOf(s wire.Source) string {
	if len(s.Subjects) > 0 {
		return s.Subjects[0]
	}
	return s.Stream
}

// split sorts rights into the broker's two lists.
func split(all []Right) (publish, subscribe []string) {
	for _, r := range all {
		if r.Action == Publish {
			publish = append(publish, r.Subject)
		} else {
			subscribe = append(subscribe, r.Subject)
		}
	}
	return sortedSet(publish), sortedSet(subscribe)
}

// SortRights puts rights into the order in which people read them: by key, word, action and subject.
func SortRights(all []Right) {
	slices.SortFunc(all, func(a, b Right) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Item, b.Item), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Subject, b.Subject))
	})
}

// commit lets who writes to or reads a stream of durability power wait for the disk, and for the disk under what parked
// events and tasks stand for.
func (r *rights) commit(key, item, js string, power bool) {
	if !power {
		return
	}
	for _, stream := range []string{js, wire.StreamName(wire.DeadStream), wire.StreamName(wire.RecordStream)} {
		r.add(Publish, key, item, "wait for the disk", wire.CommitSubject+"."+stream)
	}
}

func sortedSet(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
