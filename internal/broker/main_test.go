package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// streamState asks for the state of the stream of that JetStream name.
func streamState(t *testing.T, js jetstream.JetStream, name string) jetstream.StreamState {
	t.Helper()
	stream, err := js.Stream(testkit.Context(t), name)
	if err != nil {
		t.Fatalf("look up stream %s: %v", name, err)
	}
	return stream.CachedInfo().State
}

// publishAll stores n messages of size bytes and returns when all are acknowledged.
func publishAll(t *testing.T, js jetstream.JetStream, subject string, n, size int) {
	t.Helper()
	data := make([]byte, size)
	for i := range n {
		if _, err := js.Publish(testkit.Context(t), subject, data); err != nil {
			t.Fatalf("publish message %d: %v", i+1, err)
		}
	}
}

// fetch takes n messages from a consumer.
func fetch(t *testing.T, js jetstream.JetStream, stream, durable string, n int) []jetstream.Msg {
	t.Helper()
	consumer, err := js.Consumer(testkit.Context(t), stream, durable)
	if err != nil {
		t.Fatalf("look up consumer %s: %v", durable, err)
	}
	batch, err := consumer.Fetch(n, jetstream.FetchMaxWait(5*time.Second))
	if err != nil {
		t.Fatalf("fetch from %s: %v", durable, err)
	}
	var all []jetstream.Msg
	for msg := range batch.Messages() {
		all = append(all, msg)
	}
	if len(all) != n {
		t.Fatalf("fetched %d of %d messages from %s: %v", len(all), n, durable, batch.Error())
	}
	return all
}

func ack(t *testing.T, msgs ...jetstream.Msg) {
	t.Helper()
	for _, m := range msgs {
		if err := m.DoubleAck(testkit.Context(t)); err != nil {
			t.Fatalf("acknowledge: %v", err)
		}
	}
}

// refused connects and expects the server to say no.
func refused(t *testing.T, url, user, password string) {
	t.Helper()
	nc, err := nats.Connect(url, nats.UserInfo(user, password), nats.NoReconnect(), nats.Timeout(testkit.Patience))
	if err == nil {
		nc.Close()
		t.Errorf("%q got in", user)
	}
}
