package builtin

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

const nameEnv = "HOZO_BUILTIN_TEST_NAME"

// service is the program of a built-in service.
func service() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, os.Getenv(nameEnv)); err != nil {
		fmt.Fprint(os.Stderr, fault.Render(err))
		os.Exit(fault.ExitCode(err))
	}
}

// start starts a built-in service as the platform does: its grant in a file, its settings in the grant.
func start(t *testing.T, b *testkit.TestBroker, name string, g wire.Grant, settings any, env ...string) *testkit.Process {
	t.Helper()
	config, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	g.Service, g.Config = name, config
	data, err := json.Marshal(b.Grant(t, g))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "grant.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return testkit.Start(t, "service", append(env, nameEnv+"="+name, wire.EnvBus+"="+b.URL, wire.EnvGrant+"="+path, wire.EnvService+"="+name)...)
}

func TestServicesPassEventsFromHTTPToDatabaseAndFiles(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	port, err := broker.ChoosePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	database := filepath.Join(dir, "events.db")
	routed := wire.Grant{Consumes: []wire.Source{{Stream: "events.routed", Ordered: true}}}
	services := []*testkit.Process{
		start(t, b, "ingest", wire.Grant{Publish: []wire.Route{{Subject: rawStream, Stream: rawStream}}}, manifest.Ingest{}, fmt.Sprintf("PORT=%d", port)),
		start(t, b, "route", wire.Grant{
			Consumes: []wire.Source{{Stream: rawStream}},
			Publish:  []wire.Route{{Subject: "events.routed.push", Stream: "events.routed"}, {Subject: "events.routed.other", Stream: "events.routed"}},
		}, manifest.RouteBy{Rules: []manifest.Rule{{When: `type == "PushEvent"`, Subject: "events.routed.push"}}, Default: "events.routed.other"}),
		start(t, b, "sink", routed, manifest.Target{SQLite: database, Columns: map[string]string{"type": "type"}}),
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/v1/ingest", port)
	testkit.Eventually(t, func() bool {
		a, err := try(t, url, strings.NewReader(""))
		return err == nil && a.status == 200
	}, "ingest answers")
	if a := post(t, url, strings.NewReader(`{"type":"PushEvent"}`+"\n"+`{"type":"WatchEvent"}`+"\n"+`{"type":"PushEvent"}`)); a.Accepted != 3 {
		t.Fatalf("answer is %+v", a)
	}
	db, err := sql.Open("sqlite", "file:"+database+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got string
	testkit.Eventually(t, func() bool {
		err := db.QueryRowContext(t.Context(), `SELECT group_concat(subject||' '||type||' '||n, ', ') FROM
			(SELECT subject, type, count(*) AS n FROM events GROUP BY 1, 2 ORDER BY 1, 2)`).Scan(&got)
		return err == nil && got == "events.routed.other WatchEvent 1, events.routed.push PushEvent 2"
	}, "the rows are there")
	for _, p := range services {
		p.Signal(t, syscall.SIGTERM)
	}
	for _, p := range services {
		testkit.Wait(t, p.Done)
		if err := p.Err(); err != nil {
			t.Errorf("service ended with %v:\n%s", err, p.Output())
		}
	}
}

func TestUnknownServiceAndMissingPlatformAreFaults(t *testing.T) {
	for _, name := range []string{wire.EnvBus, wire.EnvGrant} {
		t.Setenv(name, "") // so the test cannot be parallel
	}
	if err := Run(t.Context(), "egest"); fault.Code(err) != "builtin/unknown" || fault.ExitCode(err) != 2 {
		t.Errorf("unknown service: %v", err)
	}
	for _, name := range []string{"ingest", "route", "sink"} {
		if err := Run(t.Context(), name); fault.Code(err) != "bus/no-platform" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
