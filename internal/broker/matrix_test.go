package broker_test

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// matrixServices are services of every kind that a manifest can declare.
func matrixServices() []wire.Grant {
	return []wire.Grant{
		{Service: "ingest", Publish: []wire.Route{{Subject: "raw", Stream: "raw"}, {Subject: "raw.in.*", Stream: "raw"}}},
		{Service: "stage", Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{{Subject: "events.a", Stream: "events"}, {Subject: "events.b.>", Stream: "events"}}, Enqueues: []string{"mail.send"}},
		{Service: "part", Consumes: []wire.Source{{Stream: "events", Subjects: []string{"events.b.>"}}}, Calls: []string{"price.quote"}},
		{Service: "sink", Consumes: []wire.Source{{Stream: "events", Ordered: true}}},
		{Service: "mailer", Handles: []string{"mail.send"}},
		{Service: "pricer", Serves: []string{"price.quote"}},
		{Service: "ticker", Live: []string{"prices.>"}},
		{Service: "board", Watches: []string{"prices.eu.>"}},
		{Service: "idle"},
		{Service: "keeper", Consumes: []wire.Source{{Stream: "keyed", Partitions: 2, Key: "k", PerKey: true}}, Publish: []wire.Route{{Subject: "sorted", Stream: "sorted", Partitions: 2, Key: "k"}}},
	}
}

// matrixClients are foreign clients, which have nothing to do with the platform's own subjects.
func matrixClients() []wire.Grant {
	return []wire.Grant{
		{Service: "sensor", Publish: []wire.Route{{Subject: "raw", Stream: "raw"}}, Live: []string{"prices.>"}, Calls: []string{"price.quote"}},
		{Service: "screen", Consumes: []wire.Source{{Stream: "raw"}}, Watches: []string{"prices.eu.>"}, Serves: []string{"price.quote"}},
	}
}

// declaredToClient is declared for a foreign client.
func declaredToClient(g wire.Grant, action broker.Action, subject string) bool {
	stored := subject == "raw" || strings.HasPrefix(subject, "raw.")
	if action == broker.Subscribe {
		return strings.HasPrefix(subject, "_INBOX."+g.Service+".") ||
			g.Service == "screen" && (strings.HasPrefix(subject, "prices.eu.") || stored || subject == "price.quote")
	}
	stream, consumer, what := jsParts(subject)
	switch g.Service {
	case "sensor":
		return subject == "raw" || strings.HasPrefix(subject, "prices.") || subject == "price.quote"
	default:
		mine := stream == "raw" && consumer == "screen"
		return mine && (what == "CONSUMER.INFO" || what == "CONSUMER.MSG.NEXT" || what == "ACK") || stream == "raw" && what == "STREAM.INFO"
	}
}

// declared says by the words of the manifest alone whether a service may use a subject. It shares no line with Rights.
func declared(g wire.Grant, action broker.Action, subject string) bool {
	me := g.Service + ".1"
	if action == broker.Subscribe && g.Service == "keeper" && subject == "hozo.look.keeper.keyed" {
		return true
	}
	if action == broker.Subscribe {
		hears := len(g.Watches) > 0 && strings.HasPrefix(subject, "prices.eu.")
		notes := subject == "hozo.tasknote.mail_send" && len(g.Handles) > 0 || subject == "hozo.taskchange.mail_send.A" && len(g.Enqueues) > 0
		return hears || notes || slices.Contains(g.Serves, strings.TrimPrefix(subject, "hozo.every.")) || strings.HasPrefix(subject, "_INBOX."+me+".")
	}
	if g.Service == "keeper" {
		if allowed, mine := declaredToKeeper(subject); mine {
			return allowed
		}
	}
	if subject == "hozo.report."+me || subject == "hozo.renew."+me || slices.Contains(g.Calls, strings.TrimPrefix(subject, "hozo.every.")) {
		return true
	}
	if strings.HasPrefix(subject, "prices.") {
		return len(g.Live) > 0
	}
	tasks := len(g.Enqueues)+len(g.Handles) > 0 // all of one kind, mail.send
	switch subject {
	case "hozo.tasks.mail_send.f.mail_send.2.A", "hozo.tasknote.mail_send":
		return len(g.Enqueues) > 0
	case "hozo.tasks.mail_send.q.mail_send.2.A", "hozo.tasks.mail_send.s.mail_send.A", "hozo.record.r.mail_send.A", "hozo.record.u.mail_send.A",
		"$JS.API.DIRECT.GET.hozo_record.hozo.record.r.mail_send.A", "$JS.API.DIRECT.GET.hozo_record.hozo.record.u.mail_send.A",
		"hozo.record.h.mail_send.A", "hozo.record.c.mail_send.A", "$JS.API.DIRECT.GET.hozo_record.hozo.record.h.mail_send.A",
		"$JS.API.DIRECT.GET.hozo_tasks_mail_send.hozo.tasks.mail_send.f.mail_send.*.A",
		"$JS.API.DIRECT.GET.hozo_tasks_mail_send.hozo.tasks.mail_send.q.mail_send.2.A",
		"$JS.API.DIRECT.GET.hozo_tasks_mail_send.hozo.tasks.mail_send.s.mail_send.A":
		return tasks
	}
	for _, r := range g.Publish {
		if r.Subject == subject || strings.HasSuffix(r.Subject, ".>") && strings.HasPrefix(subject, strings.TrimSuffix(r.Subject, ">")) ||
			strings.HasSuffix(r.Subject, ".in.*") && strings.HasPrefix(subject, strings.TrimSuffix(r.Subject, "*")) && strings.Count(subject, ".") == strings.Count(r.Subject, ".") {
			return true
		}
	}
	reads := len(g.Consumes) > 0
	if strings.HasPrefix(subject, "hozo.dlq."+g.Service+".") {
		return reads || len(g.Handles) > 0
	}
	if strings.HasPrefix(subject, "hozo.retry."+g.Service+".") { // to be tried later
		return slices.ContainsFunc(g.Consumes, func(s wire.Source) bool { return !s.Ordered })
	}
	// What is left are requests about streams: $JS.API.<what>.<stream>[.<consumer>…] and $JS.ACK.<stream>.<consumer>.…
	stream, consumer, what := jsParts(subject)
	writes := slices.ContainsFunc(g.Publish, func(r wire.Route) bool { return r.Stream == stream })
	reader := slices.ContainsFunc(g.Consumes, func(s wire.Source) bool { return s.Stream == stream }) || stream == "hozo_retry" && reads
	ordered := slices.ContainsFunc(g.Consumes, func(s wire.Source) bool { return s.Ordered })
	worker := stream == "hozo_tasks_mail_send" && slices.ContainsFunc(g.Handles, func(kind string) bool { return strings.ReplaceAll(kind, ".", "_")+"@2" == consumer })
	switch what {
	case "STREAM.INFO":
		return writes || reader || stream == "hozo_tasks_mail_send" && tasks || stream == "hozo_dlq" && (reads || len(g.Handles) > 0)
	case "CONSUMER.INFO", "CONSUMER.MSG.NEXT", "ACK":
		return reader && consumer == g.Service || worker
	case "CONSUMER.CREATE", "CONSUMER.DELETE", "CONSUMER.RESET":
		return ordered && reader && consumer == g.Service
	}
	return false
}

// declaredToKeeper is declared for what only a service that reads in the order of keys may do; mine says whether it is that.
func declaredToKeeper(subject string) (allowed, mine bool) {
	switch {
	case strings.HasPrefix(subject, "hozo.owner.keeper.keyed."), subject == "hozo.look.keeper.keyed",
		strings.HasPrefix(subject, "sorted.@.fence.keeper.keyed."), subject == "sorted.@.0":
		return true, true
	case strings.HasPrefix(subject, "$JS.API.DIRECT.GET.sorted"), subject == "$JS.API.DIRECT.GET.hozo_owner":
		return true, true
	case subject == "sorted", strings.HasPrefix(subject, "$JS.API.CONSUMER") && strings.HasSuffix(subject, ".keyed.keeper"),
		strings.HasPrefix(subject, "$JS.ACK.keyed.keeper."): // both are in partitions
		return false, true
	}
	if stream, consumer, what := jsParts(subject); stream == "keyed" && strings.HasPrefix(consumer, "keeper@") {
		switch what {
		case "CONSUMER.INFO", "CONSUMER.MSG.NEXT", "ACK", "CONSUMER.CREATE", "CONSUMER.DELETE", "CONSUMER.RESET":
			return true, true
		}
	}
	return false, false
}

func jsParts(subject string) (stream, consumer, what string) {
	for _, verb := range jsVerbs {
		for _, prefix := range []string{"$JS.API." + verb + ".", "$JS." + verb + "."} {
			if rest, ok := strings.CutPrefix(subject, prefix); ok {
				parts := append(strings.Split(rest, "."), "")
				return parts[0], parts[1], verb
			}
		}
	}
	return "", "", ""
}

var jsVerbs = []string{
	"STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.GET", "STREAM.MSG.DELETE", "STREAM.SNAPSHOT",
	"CONSUMER.INFO", "CONSUMER.MSG.NEXT", "CONSUMER.CREATE", "CONSUMER.DELETE", "CONSUMER.RESET", "CONSUMER.PAUSE", "CONSUMER.NAMES", "CONSUMER.LIST", "DIRECT.GET", "ACK",
}

// matrixSubjects are every subject that there is: what services declare, their neighbours, and all that the broker knows.
func matrixSubjects(services []wire.Grant) []string {
	all := []string{
		"raw", "raw.x", "raw.in.p1", "raw.in.p1.x", "events", "events.a", "events.a.x", "events.b", "events.b.x", "events.b.x.y", "other", "price.quote", "price.change", "prices", "prices.x", "prices.eu.x", "prices.>", "prices.eu.>",
		"hozo.tasks.mail_send.f.mail_send.2.A", "hozo.tasks.mail_send.f.mail_drop.2.A", "hozo.record.h.mail_send.A", "hozo.record.c.mail_send.A", "hozo.record.h.mail_drop.A",
		"$JS.API.DIRECT.GET.hozo_record.hozo.record.h.mail_send.A", "$JS.API.DIRECT.GET.hozo_tasks_mail_send.hozo.tasks.mail_send.f.mail_send.*.A",
		"hozo.tasks.mail_send.q.mail_send.2.A", "hozo.tasks.mail_send.s.mail_send.A", "hozo.tasks.mail_send.q.mail_drop.2.A", "hozo.tasks.mail_drop.q.mail_drop.2.A",
		"hozo.tasks.>", "hozo.record.r.mail_send.A", "hozo.record.u.mail_send.A", "hozo.record.r.mail_drop.A", "hozo.record.>",
		"hozo.tasknote.mail_send", "hozo.tasknote.mail_drop", "hozo.taskchange.mail_send.A", "hozo.taskchange.mail_drop.A", "hozo.taskchange.>",
		"$JS.API.DIRECT.GET.hozo_record.hozo.record.r.mail_send.A", "$JS.API.DIRECT.GET.hozo_record.hozo.record.u.mail_send.A",
		"$JS.API.DIRECT.GET.hozo_record.hozo.record.r.mail_drop.A",
		"$JS.API.DIRECT.GET.hozo_tasks_mail_send.hozo.tasks.mail_send.q.mail_send.2.A", "$JS.API.DIRECT.GET.hozo_tasks_mail_send.hozo.tasks.mail_send.s.mail_send.A",
		"hozo.every.price.quote", "hozo.every.price.change", "hozo.every.>", "hozo.report.>", "hozo.renew.>", "hozo.retry.stage.raw.1.0", "hozo.dlq.nobody.raw.1.0",
		"keyed", "keyed.@.0", "sorted", "sorted.@.0", "sorted.@.1.x", "sorted.@.fence.keeper.keyed.0", "sorted.@.fence.other.keyed.0", "keyed.@.fence.keeper.keyed.0",
		"hozo.owner.keeper.keyed.partition.0", "hozo.owner.keeper.keyed.member.m", "hozo.owner.other.keyed.partition.0", "hozo.owner.>", "hozo.look.keeper.keyed", "hozo.look.other.keyed", "hozo.look.>",
		"$JS.API.DIRECT.GET.hozo_owner", "$JS.API.DIRECT.GET.sorted", "$JS.API.DIRECT.GET.sorted.sorted.@.0", "$JS.API.DIRECT.GET.keyed",
		"$JS.API.CONSUMER.CREATE.keyed.keeper@0", "$JS.API.CONSUMER.CREATE.keyed.keeper@0.keyed.@.0", "$JS.API.CONSUMER.DELETE.keyed.keeper@1", "$JS.API.CONSUMER.CREATE.keyed.other@0", "$JS.API.CONSUMER.MSG.NEXT.keyed.keeper@0", "$JS.ACK.keyed.keeper@0.1.1.1.1.0", "$JS.ACK.keyed.other@0.1.1.1.1.0",
		"$MQTT.sub.x", "$MQTT.deliver.pubrel.x", "$MQTT.msgs.x",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.>", "$SRV.PING", "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
		"$JS.FC.raw", "$KV.x", "$O.x", "_INBOX.>", "_INBOX.other.1.x", "_R_.x", ">", "*", "raw.>", "events.>", "hozo.>",
	}
	streams := []string{"raw", "events", "keyed", "sorted", "hozo_owner", "hozo_dlq", "hozo_retry", "hozo_tasks_mail_send", "hozo_record", "nosuch"}
	for _, stream := range streams {
		for _, verb := range jsVerbs {
			switch prefix := "$JS.API." + verb + "." + stream; {
			case verb == "ACK":
				for _, g := range services {
					all = append(all, "$JS.ACK."+stream+"."+g.Service+".1.1.1.1.0")
				}
				all = append(all, "$JS.ACK."+stream+".mail_send@2.1.1.1.1.0")
			case strings.HasPrefix(verb, "CONSUMER") && verb != "CONSUMER.NAMES" && verb != "CONSUMER.LIST":
				for _, g := range services {
					all = append(all, prefix+"."+g.Service)
				}
				all = append(all, prefix+".mail_send@2", prefix+".mine")
			default:
				all = append(all, prefix)
			}
		}
	}
	for _, g := range services {
		all = append(all, "_INBOX."+g.Service+".1.x", "_INBOX."+g.Service+".2.x", "_INBOX."+g.Service+".1.>", "hozo.dlq."+g.Service+".raw.1.0",
			"hozo.report."+g.Service+".1", "hozo.report."+g.Service+".2", "hozo.renew."+g.Service+".1", "hozo.retry."+g.Service+".raw.1.0")
	}
	return all
}

// lastSubject is nobody's.
const lastSubject = "nobody.may.this"

// refusals counts what the server refuses on one connection.
type refusals struct {
	mu   sync.Mutex
	seen map[string]bool
}

var refusalText = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

func (r *refusals) note(_ *nats.Conn, _ *nats.Subscription, err error) {
	found := refusalText.FindStringSubmatch(err.Error())
	if found == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[strings.ToLower(found[1])+" "+strings.ToLower(found[2])] = true // nats.go tells errors in lower case
}

func (r *refusals) has(action broker.Action, subject string) bool {
	word := map[broker.Action]string{broker.Publish: "publish", broker.Subscribe: "subscription"}[action]
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[word+" "+strings.ToLower(subject)]
}

// What a service may do on a real broker is exactly what its lines in the manifest say, for every service, action and
// subject.
func TestAllowedIsDeclaredForEveryServiceAndSubject(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	services := matrixServices()
	for i := range services {
		words := services[i] // as the manifest has them: the source of retries is not among them
		full := b.Grant(t, words)
		services[i] = words
		services[i].User, services[i].Password, services[i].Inbox = full.User, full.Password, full.Inbox
		services[i].Instance = full.Instance
	}
	clients := matrixClients()
	for i := range clients {
		clients[i] = b.Client(t, clients[i])
	}
	subjects := matrixSubjects(append(slices.Clone(services), clients...))
	cells := 0
	for i, g := range append(services, clients...) {
		declared := declared
		if i >= len(services) {
			declared = declaredToClient
		}
		refused := refusals{seen: map[string]bool{}}
		nc := b.Connect(t, g, nats.ErrorHandler(refused.note))
		for _, subject := range subjects {
			if !strings.ContainsAny(subject, "*>") {
				if err := nc.PublishRequest(subject, g.Inbox+".matrix", nil); err != nil {
					t.Fatal(err)
				}
			}
			sub, err := nc.SubscribeSync(subject)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sub.Unsubscribe() }() // the connection is closed right after
		}
		// Refusals come in the order of what was asked: once this one is here, all are.
		if err := nc.Publish(lastSubject, nil); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, func() bool { return refused.has(broker.Publish, lastSubject) }, "the last refusal comes")
		for _, subject := range subjects {
			for _, action := range []broker.Action{broker.Publish, broker.Subscribe} {
				if action == broker.Publish && strings.ContainsAny(subject, "*>") {
					continue
				}
				cells++
				if allowed, want := !refused.has(action, subject), declared(g, action, subject); allowed != want {
					t.Errorf("%s: %s %s: allowed is %v, declared is %v", g.Service, action, subject, allowed, want)
				}
			}
		}
	}
	t.Logf("%d services and clients × subjects and actions: %d cells", len(services)+len(clients), cells)
	if cells < 2000 {
		t.Errorf("only %d cells were tried", cells)
	}
}
