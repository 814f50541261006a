package testkit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestMain(m *testing.M) {
	testkit.Main(m, testkit.Child("hello", func() { fmt.Println("hello from", os.Getenv("WHO")) }))
}

func TestChildRunsAsTheProgramOfItsName(t *testing.T) {
	t.Parallel()
	p := testkit.Start(t, "hello", "WHO=a child")
	testkit.Wait(t, p.Done)
	if p.Err() != nil || p.Output() != "hello from a child\n" {
		t.Errorf("child said %q and ended with %v", p.Output(), p.Err())
	}
}

func TestBrokerKeepsDataAndClientsOverRestart(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	storeThenComeBack(t, b, b.Stop)
}

func TestBrokerProcessKeepsDataOverKill(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	storeThenComeBack(t, b, b.Kill)
}

func storeThenComeBack(t *testing.T, b *testkit.TestBroker, end func(testing.TB)) {
	t.Helper()
	g := b.Grant(t, wire.Grant{Service: "a", Publish: []wire.Route{{Subject: "events.>", Stream: "events"}}})
	lost := make(chan struct{}, 1) // one disconnect is caused
	back := make(chan struct{}, 1) // and one reconnect
	nc := b.Connect(t, g, nats.DisconnectErrHandler(func(*nats.Conn, error) { lost <- struct{}{} }),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	ctx := testkit.Context(t)
	publish := func(data string) {
		t.Helper()
		reply, err := nc.RequestWithContext(ctx, "events.x", []byte(data))
		if err != nil || bytes.Contains(reply.Data, []byte("error")) {
			t.Fatalf("publish: %v, %v", reply, err)
		}
	}
	publish("before")
	end(t)
	testkit.Wait(t, lost)
	b.Start(t)
	testkit.Wait(t, back)
	publish("after")
	stream, err := b.JS.Stream(ctx, "events")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 2 {
		t.Errorf("stream holds %d messages, want 2", n)
	}
}

func TestGrantsOfOneServiceGetTheirOwnInstances(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	first, second := b.Grant(t, wire.Grant{Service: "a"}), b.Grant(t, wire.Grant{Service: "a"})
	if first.User != "a.1" || second.User != "a.2" || first.Password == second.Password {
		t.Errorf("grants: %s and %s", first.User, second.User)
	}
}

func TestTmpfsIsAsSmallAsAskedFor(t *testing.T) {
	t.Parallel()
	dir := testkit.Tmpfs(t, 1<<20)
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o600); err == nil {
		t.Error("2 MiB fit in 1 MiB")
	}
}
