package node_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// clientsManifest has foreign clients that write and read without frames. %[1]s is the test binary.
const clientsManifest = `project: test
live: [prices.>]
streams:
  events.raw: { max_bytes: 64MiB, frames: false }
services:
  feeder: { run: "%[1]s idle", publishes: [events.raw] }
  reader: { run: "%[1]s tiny", health: notify, consumes: [events.raw] }
clients:
  sensor: { publishes: [events.raw, prices.eu] }
  screen: { consumes: [events.raw], watches: [prices.>] }
`

// The password of a foreign client is replaced when somebody asks for it: the old one is good for as long as was said, on
// connections that are there and on new ones, and then neither.
func TestThePasswordOfAClientIsReplacedWithAnOverlap(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := upWith(t, testkit.TempDir(t), self, fmt.Sprintf(clientsManifest, self))
	ctx := testkit.Context(t)
	password := func() string {
		file, err := node.ReadClient(p.state, "sensor")
		if err != nil {
			t.Fatal(err)
		}
		return file.Password
	}
	join := func(password string) (*nats.Conn, error) {
		return nats.Connect(p.bus(t), nats.UserInfo("sensor", password), nats.NoReconnect(), nats.Timeout(testkit.Patience))
	}
	first := password()
	old, err := join(first)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if done, err := p.client.Rotate(ctx, []string{"sensor"}, time.Hour); err != nil || len(done.Instances) != 0 || len(done.Clients) != 1 || time.Until(done.ClientsUntil) < 30*time.Minute {
		t.Fatalf("rotated %+v, %v", done, err)
	}
	second := password()
	if second == first {
		t.Fatal("the password is the same")
	}
	for _, one := range []string{first, second} {
		testkit.Eventually(t, func() bool {
			nc, err := join(one)
			if err == nil {
				nc.Close()
			}
			return err == nil
		}, "both passwords are good")
	}
	if err := old.Publish("events.raw", []byte("1")); err != nil || old.FlushTimeout(testkit.Patience) != nil {
		t.Errorf("the connection from before is not good any more: %v", err)
	}
	if _, err := p.client.Apply(ctx, p.file, ""); err != nil || password() != second {
		t.Errorf("an apply has changed the password, %v", err)
	}

	if _, err := p.client.Rotate(ctx, []string{"sensor"}, 0); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, old.IsClosed, "the connection with an old password is closed")
	for _, one := range []string{first, second} {
		if nc, err := join(one); err == nil {
			nc.Close()
			t.Error("an old password is good without an overlap")
		}
	}
	nc, err := join(password())
	if err != nil {
		t.Fatalf("the new password is refused: %v", err)
	}
	nc.Close()
	if _, err := p.client.Rotate(ctx, []string{"sensors"}, 0); fault.Code(err) != "node/unknown-service" || !strings.Contains(err.Error(), "sensors") {
		t.Errorf("an unknown client: %v", err)
	}
	if _, err := p.client.Rotate(ctx, []string{"sensor"}, -time.Second); fault.Code(err) != "access/overlap" {
		t.Errorf("a negative overlap: %v", err)
	}
}

func TestRightsOfAClientAreExplained(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hozo.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, clientsManifest, "true"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Load(path, "")
	if err != nil {
		t.Fatal(err)
	}
	e, err := node.Explain(m, "sensor", "events.raw")
	if err != nil {
		t.Fatal(err)
	}
	if !e.Client || e.Declared != "hozo.yaml:9" || !e.Verdicts[0].Allowed || e.Verdicts[0].By[0].Line != "hozo.yaml:9" {
		t.Errorf("sensor and its stream: %+v", e)
	}
	for _, r := range e.Rights {
		if strings.HasPrefix(r.Subject, "hozo.report") || strings.HasPrefix(r.Subject, "hozo.dlq") {
			t.Errorf("a client may use the platform's %s", r.Subject)
		}
	}
	e, err = node.Explain(m, "screen", "events.raw")
	if err != nil {
		t.Fatal(err)
	}
	if v := e.Verdicts[0]; v.Action != broker.Publish || v.Allowed || !strings.Contains(v.Fix, "under clients.screen (hozo.yaml:10)") {
		t.Errorf("screen may not publish: %+v", v)
	}
	if v := e.Verdicts[1]; !v.Allowed {
		t.Errorf("screen may hear what it consumes: %+v", v)
	}
	e, err = node.Explain(m, "reader", "events.raw")
	if err != nil {
		t.Fatal(err)
	}
	if v := e.Verdicts[1]; v.Allowed || !strings.Contains(v.Fix, "does already") {
		t.Errorf("a service that consumes a stream and would listen to it: %+v", v)
	}
	if _, err := node.Explain(m, "nobody", ""); fault.Code(err) != "node/unknown-service" || !strings.Contains(err.Error(), "client") {
		t.Errorf("somebody who is not declared: %v", err)
	}
}

// The nats command line needs the file of its client and nothing else. HOZO_NATS_CLI names the program: building it takes
// longer than all of this package's tests. go install github.com/nats-io/natscli/nats@v0.5.1 makes it.
func TestTheNATSCommandLineIsAClient(t *testing.T) {
	program := os.Getenv("HOZO_NATS_CLI")
	if program == "" {
		t.Skip("HOZO_NATS_CLI names no nats command line")
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := upWith(t, testkit.TempDir(t), self, fmt.Sprintf(clientsManifest, self))
	home := t.TempDir()
	cli := func(client string, args ...string) (string, error) {
		cmd := exec.CommandContext(testkit.Context(t), program, append([]string{"--context", filepath.Join(p.state, "clients", client+".json")}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := cli("sensor", "pub", "--jetstream", "events.raw", `{"n":1}`); err != nil {
		t.Errorf("pub: %v\n%s", err, out)
	}
	if out, err := cli("screen", "consumer", "next", "events_raw", "screen", "--raw", "--timeout", "20s"); err != nil || strings.TrimSpace(out) != `{"n":1}` {
		t.Errorf("consumer next: %v\n%s", err, out)
	}
	if out, err := cli("sensor", "pub", "--jetstream", "events.other", "x"); err == nil || !strings.Contains(strings.ToLower(out), "permissions violation") {
		t.Errorf("pub of what is not declared: %v\n%s", err, out)
	}
}
