package builtin

import (
	"context"
	"database/sql"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/wire"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of database/sql
	"github.com/nats-io/nats.go"
)

// run runs a Runner to the end of the test, and returns when it is ready.
func run(t *testing.T, r lifecycle.Runner) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	testkit.Wait(t, r.Ready())
}

func TestSinkStoresItsStreamAndItsRetriedEvents(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	const stream = "events.routed"
	conn := connect(t, b, b.Grant(t, wire.Grant{Service: "archive", Consumes: []wire.Source{{Stream: stream, Ordered: true}}}))
	path := filepath.Join(t.TempDir(), "data", "events.db")
	target, cfg, err := openTarget(t.Context(), manifest.Target{SQLite: path, Table: "t", Columns: map[string]string{"n": "n"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	})
	sinks, err := newSinks(conn, target, cfg, testkit.Logger(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(sinks) != 2 {
		t.Fatalf("%d sinks, want one of the stream and one of retried events", len(sinks))
	}
	for _, s := range sinks {
		run(t, s)
	}
	builder := bus.NewBuilder(wire.CodecZstd)
	builder.Add([]byte(`{"n":1}`))
	if _, err := b.JS.Publish(t.Context(), stream+".push", builder.Frame()); err != nil {
		t.Fatal(err)
	}
	id := wire.EventID{Stream: stream, Seq: 9, Index: 4}
	retried := &nats.Msg{
		Subject: wire.RetrySubject("archive", id), Data: []byte(`{"n":2}`),
		Header: nats.Header{wire.HeaderSource: {id.String()}, wire.HeaderSubject: {stream + ".watch"}},
	}
	if _, err := b.JS.PublishMsg(t.Context(), retried); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 2 }, "both events are stored")
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got string
	err = db.QueryRowContext(t.Context(), `SELECT group_concat(n||' '||stream||':'||seq||':'||idx||' '||subject, ', ' ORDER BY n) FROM t`).Scan(&got)
	if want := "1 events.routed:1:0 events.routed.push, 2 events.routed:9:4 events.routed.watch"; err != nil || got != want {
		t.Fatalf("rows are %q, %v; want %q", got, err, want)
	}
}

func TestSinkWritesToPostgreSQLWithAPasswordFromTheEnvironment(t *testing.T) { //nolint:paralleltest // the environment
	server, err := url.Parse(testkit.Postgres(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := server.User.Password()
	t.Setenv("PGPASSWORD", password)
	withPassword := server.String()
	server.User = url.User(server.User.Username())
	b := testkit.Broker(t)
	conn := connect(t, b, b.Grant(t, wire.Grant{Service: "archive", Consumes: []wire.Source{{Stream: rawStream, Ordered: true}}}))
	target, cfg, err := openTarget(t.Context(), manifest.Target{Postgres: server.String(), Table: "t", Columns: map[string]string{"n": "n"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	})
	sinks, err := newSinks(conn, target, cfg, testkit.Logger(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sinks {
		run(t, s)
	}
	publishJSON(t, b, rawStream, rawStream, 3)
	testkit.Eventually(t, func() bool { return conn.Counters().EventsIn.Load() == 3 }, "the events are stored")
	db, err := sql.Open("pgx", withPassword)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got string
	if err := db.QueryRowContext(t.Context(), `SELECT string_agg(n||' '||body::text, ', ' ORDER BY seq, idx) FROM t`).Scan(&got); err != nil || got != `0 {"n":0}, 1 {"n":1}, 2 {"n":2}` {
		t.Errorf("the table holds %q, %v", got, err)
	}
}

func TestTargetMustBeExactlyOne(t *testing.T) {
	t.Parallel()
	for _, cfg := range []manifest.Target{{}, {SQLite: "a", File: "b"}, {SQLite: "a", Postgres: "postgres://localhost/b"}} {
		if _, _, err := openTarget(t.Context(), cfg); fault.Code(err) != "sink/no-target" {
			t.Errorf("%+v: got %v", cfg, err)
		}
	}
	target, cfg, err := openTarget(t.Context(), manifest.Target{File: t.TempDir(), Rotate: manifest.Rotate{Bytes: 5, Age: 7}})
	if err != nil || cfg.FlushAge != 7 {
		t.Fatalf("file target: %+v, %v", cfg, err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStreamReadTwiceByOneSinkIsAFault(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := wire.Grant{Consumes: []wire.Source{{Stream: "a", Durable: "x"}, {Stream: "a", Durable: "y"}}}
	conn := connect(t, b, b.Grant(t, wire.Grant{Service: "s", Consumes: g.Consumes}))
	if _, err := newSinks(conn, nil, sink.Config{}, nil); fault.Code(err) != "sink/source-twice" {
		t.Fatalf("got %v", err)
	}
}
