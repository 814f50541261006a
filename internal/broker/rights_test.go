package broker_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// who is one connection of an instance.
type who struct {
	nc *nats.Conn
	js jetstream.JetStream
}

// try runs act on a new connection as g. It returns why it was refused, by the server or by what act got back.
func try(t *testing.T, b *testkit.TestBroker, g wire.Grant, act func(context.Context, who) error) error {
	t.Helper()
	ctx, cancel := context.WithCancel(testkit.Context(t))
	defer cancel()
	// A refused request is never answered: the refusal ends the wait.
	nc := b.Connect(t, g, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { cancel() }))
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := act(ctx, who{nc, js}); err != nil {
		return err
	}
	// The server's refusals come before its answer to this.
	if err := nc.FlushWithContext(testkit.Context(t)); err != nil {
		return err
	}
	return nc.LastError()
}

func publish(subject string) func(context.Context, who) error {
	return func(_ context.Context, w who) error { return w.nc.Publish(subject, []byte("x")) }
}

func store(subject string) func(context.Context, who) error {
	return func(ctx context.Context, w who) error {
		_, err := w.js.Publish(ctx, subject, []byte("x"))
		return err
	}
}

func subscribe(subject string) func(context.Context, who) error {
	return func(_ context.Context, w who) error {
		_, err := w.nc.SubscribeSync(subject)
		return err
	}
}

func request(subject string) func(context.Context, who) error {
	return func(ctx context.Context, w who) error {
		_, err := w.nc.RequestWithContext(ctx, subject, nil)
		return err
	}
}

// work pulls a message and acknowledges it.
func work(stream, durable string) func(context.Context, who) error {
	return func(ctx context.Context, w who) error {
		c, err := w.js.Consumer(ctx, stream, durable)
		if err != nil {
			return err
		}
		msg, err := c.Next(jetstream.FetchContext(ctx))
		if err != nil {
			return err
		}
		if err := msg.InProgress(); err != nil {
			return err
		}
		return msg.DoubleAck(ctx)
	}
}

func recreate(stream string, cfg jetstream.ConsumerConfig) func(context.Context, who) error {
	return func(ctx context.Context, w who) error {
		if err := w.js.DeleteConsumer(ctx, stream, cfg.Durable); err != nil {
			return err
		}
		_, err := w.js.CreateConsumer(ctx, stream, cfg)
		return err
	}
}

func lastOf(stream, subject string) func(context.Context, who) error {
	return func(ctx context.Context, w who) error {
		s, err := w.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		_, err = s.GetLastMsgForSubject(ctx, subject)
		return err
	}
}

func TestUserMayDoWhatItsGrantDeclaresAndNothingElse(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	ordered := jetstream.ConsumerConfig{Durable: "archive", AckPolicy: jetstream.AckAllPolicy, FilterSubjects: []string{"events.a.>", "events.b.>"}}
	users := map[string]wire.Grant{
		"stage": b.Grant(t, wire.Grant{
			Service:  "stage",
			Consumes: []wire.Source{{Stream: "raw"}}, Publish: []wire.Route{{Subject: "events.a.>", Stream: "events"}},
			Enqueues: []string{"mail.send"}, Calls: []string{"price.quote"},
		}),
		"sink": b.Grant(t, wire.Grant{
			Service:  "archive",
			Consumes: []wire.Source{{Stream: "events", Subjects: ordered.FilterSubjects, Ordered: true}},
		}),
		"worker": b.Grant(t, wire.Grant{Service: "mailer", Handles: []string{"mail.send"}}),
		"server": b.Grant(t, wire.Grant{Service: "pricer", Serves: []string{"price.quote"}}),
		"ingest": b.Grant(t, wire.Grant{
			Service: "ingest",
			Publish: []wire.Route{{Subject: "raw", Stream: "raw"}, {Subject: "raw.in.*", Stream: "raw"}},
		}),
		"nobody": b.Grant(t, wire.Grant{Service: "nobody"}),
	}
	server := b.Connect(t, users["server"])
	if _, err := server.QueueSubscribe("price.quote", "pricer", func(m *nats.Msg) { _ = m.Respond([]byte("7")) }); err != nil {
		t.Fatal(err)
	}
	if err := server.FlushWithContext(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"raw", "raw.in.p", "raw", "events.a.x", "events.b.x", "hozo.retry.stage.raw.1.0", "hozo.retry.archive.events.1.0", "hozo.tasks.mail_send.q.mail_send.2.A"} {
		publishAll(t, b.JS, subject, 1, 1)
	}
	for _, c := range []struct {
		name string
		user string
		act  func(context.Context, who) error
		want bool
	}{
		{"publish its route", "stage", store("events.a.x"), true},
		{"publish beside its route", "stage", publish("events.b.x"), false},
		{"publish into the stream that it reads", "stage", publish("raw"), false},
		{"pull and acknowledge", "stage", work("raw", "stage"), true},
		{"pull what is retried", "stage", work("hozo_retry", "stage"), true},
		{"pull another's retries", "stage", work("hozo_retry", "archive"), false},
		{"pull as another", "stage", work("events", "archive"), false},
		{"acknowledge for another", "stage", publish("$JS.ACK.events.archive.1.1.1.1.0"), false},
		{"park its own", "stage", store("hozo.dlq.stage.raw.1.0"), true},
		{"park as another", "stage", publish("hozo.dlq.archive.raw.1.0"), false},
		{"enqueue its kind", "stage", store("hozo.tasks.mail_send.q.mail_send.2.B"), true},
		{"enqueue its kind for later", "stage", publish("hozo.tasks.mail_send.s.mail_send.B"), true},
		{"enqueue another kind", "stage", publish("hozo.tasks.mail_drop.q.mail_drop.2.B"), false},
		{"enqueue another kind into the queue of its own", "stage", publish("hozo.tasks.mail_send.q.mail_drop.2.B"), false},
		{"look up a record of its kind", "stage", publish("$JS.API.DIRECT.GET.hozo_record.hozo.record.r.mail_send.B"), true},
		{"look up a record of another kind", "stage", publish("$JS.API.DIRECT.GET.hozo_record.hozo.record.r.mail_drop.B"), false},
		{"record for another kind", "stage", publish("hozo.record.r.mail_drop.B"), false},
		{"pull what it enqueues", "stage", work("hozo_tasks_mail_send", "mail_send@2"), false},
		{"purge a queue", "stage", request("$JS.API.STREAM.PURGE.hozo_tasks_mail_send"), false},
		{"pause a queue", "stage", request("$JS.API.CONSUMER.PAUSE.hozo_tasks_mail_send.mail_send@2"), false},
		{"ask its call", "stage", request("price.quote"), true},
		{"ask another call", "stage", request("price.change"), false},
		{"report", "stage", publish("hozo.report.stage.1"), true},
		{"report as another", "stage", publish("hozo.report.archive.1"), false},
		{"recreate a consumer that is not ordered", "stage", recreate("raw", jetstream.ConsumerConfig{Durable: "stage"}), false},
		{"read messages of a stream directly", "stage", request("$JS.API.STREAM.MSG.GET.raw"), false},
		{"delete a stream", "stage", request("$JS.API.STREAM.DELETE.events"), false},
		{"purge a stream", "stage", request("$JS.API.STREAM.PURGE.raw"), false},
		{"make a stream", "stage", request("$JS.API.STREAM.CREATE.mine"), false},
		{"list streams", "stage", request("$JS.API.STREAM.NAMES"), false},
		{"listen to everything", "stage", subscribe(">"), false},
		{"listen to a stream's subjects", "stage", subscribe("events.>"), false},
		{"listen to another's inbox", "stage", subscribe("_INBOX.archive.1.>"), false},
		{"listen to every inbox", "stage", subscribe("_INBOX.>"), false},
		{"listen to its own inbox", "stage", subscribe("_INBOX.stage.1.x"), true},
		{"listen to the system", "stage", subscribe("$SYS.>"), false},

		{"pull in order", "sink", work("events", "archive"), true},
		{"move its consumer", "sink", recreate("events", ordered), true},
		{"move its retries' consumer", "sink", recreate("hozo_retry", jetstream.ConsumerConfig{
			Durable:   "archive",
			AckPolicy: jetstream.AckAllPolicy, FilterSubject: "hozo.retry.archive.>",
		}), true},
		{"move another's consumer", "sink", recreate("raw", jetstream.ConsumerConfig{Durable: "stage"}), false},
		{"publish from a sink", "sink", publish("events.a.x"), false},

		{"pull its tasks", "worker", work("hozo_tasks_mail_send", "mail_send@2"), true},
		{"bury a task", "worker", store("hozo.dlq.mailer.hozo_tasks_mail_send.1.0"), true},
		{"take a frame of what it handles apart", "worker", publish("hozo.tasks.mail_send.q.mail_send.2.B"), true},
		{"enqueue a frame of what it handles", "worker", publish("hozo.tasks.mail_send.f.mail_send.2.B"), false},
		{"record what it handles", "worker", store("hozo.record.r.mail_send.B"), true},
		{"pull another kind", "worker", publish("$JS.API.CONSUMER.MSG.NEXT.hozo_tasks_mail_drop.mail_drop@2"), false},
		{"purge what it handles", "worker", request("$JS.API.STREAM.PURGE.hozo_tasks_mail_send"), false},

		{"serve its call", "server", subscribe("price.quote"), true},
		{"serve another call", "server", subscribe("price.change"), false},
		{"ask what it serves", "server", publish("price.quote"), false},

		{"store a numbered batch", "ingest", store("raw.in.p"), true},
		{"look up a producer's last batch", "ingest", lastOf("raw", "raw.in.p"), true},
		{"look into another stream", "ingest", lastOf("events", "events.a.x"), false},

		{"report without any wiring", "nobody", publish("hozo.report.nobody.1"), true},
		{"publish without any wiring", "nobody", publish("raw"), false},
		{"pull without any wiring", "nobody", work("raw", "stage"), false},
		{"park without any wiring", "nobody", publish("hozo.dlq.nobody.raw.1.0"), false},
	} {
		if err := try(t, b, users[c.user], c.act); (err == nil) != c.want {
			t.Errorf("%s: %s: allowed is %v, want %v (%v)", c.user, c.name, err == nil, c.want, err)
		}
	}
}
