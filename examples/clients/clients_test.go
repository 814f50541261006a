package clients_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// python is Debian's, where the package python3-zmq is.
const python = "/usr/bin/python3"

// Programs that know nothing of Hozo, each by its own protocol, reach a program that knows nothing of it either.
func TestEveryClientReachesTheEndpoint(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and starts a project")
	}
	t.Parallel()
	dir := testkit.TempDir(t)
	hozo := filepath.Join(testkit.Build(t, "../../cmd/hozo"), "hozo")
	copyFile(t, "endpoint.py", filepath.Join(dir, "endpoint.py"), "python3", "python3")
	natsPort, mqttPort, zmqPort, endpointPort := freePort(t), freePort(t), freePort(t), freePort(t)
	copyFile(t, "hozo.yaml", filepath.Join(dir, "hozo.yaml"),
		"listen: 4222", "listen: "+natsPort, "mqtt: 1883", "mqtt: "+mqttPort, "in: 5555", "in: "+zmqPort,
		"http: 8080", "http: 0", "http: 9000", "http: "+endpointPort, "127.0.0.1:9000", "127.0.0.1:"+endpointPort,
		"run: python3", "run: "+python)
	state := filepath.Join(dir, "s")
	client := node.NewClient(state)
	t.Cleanup(func() { command(t, dir, hozo, "down", "--state", state) })
	command(t, dir, hozo, "up", "-d", "--no-build", "--state", state)
	var ingest string
	testkit.Eventually(t, func() bool {
		s, err := client.Status(t.Context())
		if err != nil {
			return false
		}
		for _, one := range s.Services {
			if len(one.Instances) == 0 || one.Instances[0].State != status.Ready {
				return false
			}
			if one.Name == "http" {
				ingest = one.Listen["http"]
			}
		}
		return ingest != ""
	}, "everything is ready")
	credential := sensor(t, filepath.Join(state, "clients", "sensor.json"))

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ingest+"/v1/publish/events", strings.NewReader(`{"from":"http"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the publish endpoint answers %s", response.Status)
	}
	command(t, dir, "mosquitto_pub", "-h", "127.0.0.1", "-p", mqttPort, "-u", credential.User, "-P", credential.Password, "-q", "1", "-t", "events", "-m", `{"from":"mqtt"}`)
	command(t, dir, python, "-c", `
import sys, zmq
context = zmq.Context()
push = context.socket(zmq.PUSH)
push.connect("tcp://127.0.0.1:" + sys.argv[1])
push.send_json({"from": "zmq"})
push.close()
context.term()`, zmqPort)
	natsPublish(t, natsPort, credential)

	testkit.Eventually(t, func() bool {
		log, err := os.ReadFile(filepath.Join(state, "logs", "endpoint.1.log"))
		if err != nil {
			return false
		}
		for _, from := range []string{"http", "mqtt", "zmq", "nats"} {
			text := strings.ReplaceAll(string(log), " ", "")
			if strings.Count(text, fmt.Sprintf(`{"from":%q}`, from)) != 1 {
				return false
			}
		}
		return true
	}, "the endpoint has printed the event of each client")
}

func natsPublish(t *testing.T, port string, c credential) {
	t.Helper()
	nc, err := nats.Connect("nats://"+net.JoinHostPort("127.0.0.1", port), nats.UserInfo(c.User, c.Password), nats.CustomInboxPrefix(c.InboxPrefix), nats.Timeout(testkit.Patience))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	if _, err := js.Publish(ctx, "events", []byte(`{"from":"nats"}`)); err != nil {
		t.Errorf("publish by NATS: %v", err)
	}
}

// credential is a context of the nats command line.
type credential struct {
	User        string `json:"user"`
	Password    string `json:"password"`
	InboxPrefix string `json:"inbox_prefix"`
}

func sensor(t *testing.T, path string) (c credential) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func copyFile(t *testing.T, from, to string, replace ...string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte(strings.NewReplacer(replace...).Replace(string(data))), 0o600); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
