package broker

import (
	"slices"

	"github.com/hozo-dev/hozo/wire"
)

// ClientOf returns the user that a foreign client is: it may do what its lines declare, with g in the role of an
// instance's grant, and has no business with the platform's own subjects.
//
// What it consumes it may pull by the durable consumer of its name, and it may subscribe to the same subjects to hear
// what is stored from then on, which is all that an MQTT client can do.
func ClientOf(g wire.Grant) User {
	publish, subscribe := split(ClientRightsOf(g))
	return User{
		Name: g.User, PasswordSHA256: HashPassword(g.Password), Publish: publish, Subscribe: subscribe,
		Respond: len(g.Serves) > 0, Client: true,
	}
}

// ClientRightsOf returns what [ClientOf] allows with the reason for each, in no useful order; one subject may have several.
func ClientRightsOf(g wire.Grant) []Right {
	var all rights
	for _, to := range g.Publish {
		all.add(Publish, "publishes", to.Subject, "store events", to.Subject)
	}
	for _, subject := range g.Live {
		all.add(Publish, "publishes", subject, "send live events", subject)
	}
	for _, from := range g.Consumes {
		all.consumer("consumes", itemOf(from), wire.StreamName(from.Stream), from.Durable)
		subjects := from.Subjects
		if len(subjects) == 0 {
			subjects = wire.StreamSubjects(from.Stream)
		}
		all.add(Subscribe, "consumes", itemOf(from), "hear events as they are stored", subjects...)
	}
	for _, subject := range g.Watches {
		all.add(Subscribe, "watches", subject, "hear live events", subject)
	}
	for _, subject := range g.Calls {
		all.add(Publish, "calls", subject, "ask", subject)
	}
	for _, subject := range g.Serves {
		all.add(Subscribe, "serves", subject, "take requests", subject)
	}
	all.enqueues(g)
	all.add(Subscribe, "", "", "get answers", g.Inbox+".>")
	return all
}

// byMQTT returns the rights of a client that has come in by MQTT. The server hands it what it stores for a subscription
// of QoS 1 or 2 on subjects of these, in the client's name; nobody else may listen there.
func byMQTT(u User) User {
	u.Subscribe = append(slices.Clone(u.Subscribe), "$MQTT.sub.>")
	u.Publish = append(slices.Clone(u.Publish), "$MQTT.deliver.pubrel.>")
	return u
}
