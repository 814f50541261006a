package tasks_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// Programs in Python and Node, without packages, enqueue tasks and do them; a NATS client enqueues by the wire contract.
func TestProgramsInOtherLanguagesEnqueueAndDoTasks(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and starts a project")
	}
	t.Parallel()
	dir := testkit.TempDir(t)
	hozo := filepath.Join(testkit.Build(t, "../../cmd/hozo"), "hozo")
	for _, name := range []string{"worker.py", "worker.mjs"} {
		copyFile(t, name, filepath.Join(dir, name))
	}
	natsPort, counterPort, sorterPort := freePort(t), freePort(t), freePort(t)
	copyFile(t, "hozo.yaml", filepath.Join(dir, "hozo.yaml"), "listen: 4222", "listen: "+natsPort, "http: 8080", "http: 0",
		"http: 9001", "http: "+counterPort, "127.0.0.1:9001", "127.0.0.1:"+counterPort,
		"http: 9002", "http: "+sorterPort, "127.0.0.1:9002", "127.0.0.1:"+sorterPort,
		"run: python3", "run: "+program(t, "/usr/bin/python3", "python3"), "run: node", "run: "+program(t, "/usr/bin/node", "node"))
	state := filepath.Join(dir, "s")
	client := node.NewClient(state)
	t.Cleanup(func() { command(t, dir, hozo, "down", "--state", state) })
	command(t, dir, hozo, "up", "-d", "--no-build", "--state", state)
	var door string
	testkit.Eventually(t, func() bool {
		s, err := client.Status(t.Context())
		if err != nil {
			return false
		}
		for _, one := range s.Services {
			if len(one.Instances) == 0 || one.Instances[0].State != status.Ready {
				return false
			}
			if one.Name == "door" {
				door = one.Listen["http"]
			}
		}
		return door != ""
	}, "everything is ready")

	if got := command(t, ".", program(t, "/usr/bin/python3", "python3"), "enqueue.py", door); !strings.HasPrefix(got, "done {'words': 4}\ndead ") || !strings.Contains(got, "the endpoint answers 422") {
		t.Errorf("enqueue.py says:\n%s", got)
	}
	// The worker in Node puts its first task off, which is no failure: it is done by its first attempt.
	if got := command(t, ".", program(t, "/usr/bin/node", "node"), "enqueue.mjs", door); got != "done 1 joint mortise tenon\n" {
		t.Errorf("enqueue.mjs says:\n%s", got)
	}
	enqueueByNATS(t, natsPort, filepath.Join(state, "clients", "app.json"))
}

// enqueueByNATS does by hand what docs/CLIENTS.md says of tasks on the wire.
func enqueueByNATS(t *testing.T, port, file string) {
	t.Helper()
	var c struct {
		User        string `json:"user"`
		Password    string `json:"password"`
		InboxPrefix string `json:"inbox_prefix"`
	}
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+net.JoinHostPort("127.0.0.1", port), nats.UserInfo(c.User, c.Password), nats.CustomInboxPrefix(c.InboxPrefix), nats.Timeout(testkit.Patience))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := nc.SubscribeSync("hozo.taskchange.words_count.by-hand")
	if err != nil {
		t.Fatal(err)
	}
	msg := &nats.Msg{Subject: "hozo.tasks.words_count.q.words_count.2.by-hand", Data: []byte(`{"text":"on the wire"}`), Header: nats.Header{
		"Nats-Msg-Id": {"words.count:by-hand"}, "Nats-Expected-Last-Subject-Sequence": {"0"},
	}}
	if _, err := js.PublishMsg(testkit.Context(t), msg); err != nil {
		t.Fatal(err)
	}
	for state := ""; state != "done"; {
		change, err := changes.NextMsgWithContext(testkit.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		state = change.Header.Get("Hozo-State")
	}
	record, err := nc.RequestWithContext(testkit.Context(t), "$JS.API.DIRECT.GET.hozo_record.hozo.record.r.words_count.by-hand", nil)
	if err != nil || string(record.Data) != `{"words": 3}` || record.Header.Get("Hozo-State") != "done" {
		t.Errorf("the record is %+v, %v", record, err)
	}
}

// program is the Debian package's, or else what is in the path.
func program(t *testing.T, debian, name string) string {
	t.Helper()
	if _, err := os.Stat(debian); err == nil {
		return debian
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: run internal/testkit/deps.sh", name)
	}
	return path
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

// command runs a program to its end and returns what it has printed.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &errs)
	}
	return string(out)
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
