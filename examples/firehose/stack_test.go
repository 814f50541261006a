package firehose_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// stack is a running firehose in a folder of its own.
type stack struct {
	t      *testing.T
	dir    string // manifest and programs
	hozo   string
	state  string // folder
	data   string // folder
	client *node.Client
}

// startStack starts the firehose with its state and its data in place. Each pair of edits is a text of the manifest and
// what is put there instead.
func startStack(t *testing.T, place string, edits ...string) *stack {
	t.Helper()
	return startStackOf(t, "hozo.yaml", place, edits...)
}

// startStackOf is startStack for another manifest.
func startStackOf(t *testing.T, file, place string, edits ...string) *stack {
	t.Helper()
	dir := testkit.TempDir(t)
	state, data := filepath.Join(place, "s"), filepath.Join(place, "data")
	s := &stack{t: t, dir: dir, hozo: filepath.Join(dir, "bin", "hozo"), state: state, data: data, client: node.NewClient(state)}
	if err := os.Symlink(testkit.Build(t, "../../cmd/hozo", "./classify", "./enrich", "./report", "./api"), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edits = append(edits, "http: 8080", "http: 0", "http: 8081", "http: 0", "data/", data+"/")
	text := strings.NewReplacer(edits...).Replace(string(manifest))
	if err := os.WriteFile(filepath.Join(dir, "hozo.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.dumpLogs()
		}
		s.down()
	})
	s.run("up", "-d", "--no-build")
	return s
}

// run runs a hozo command and returns what it prints.
func (s *stack) run(args ...string) string {
	s.t.Helper()
	return run(s.t, s.dir, s.hozo, append(args, "--state", s.state)...)
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *stack) down() { s.run("down") }

// status asks until the node answers: it is among the victims.
func (s *stack) status() status.Snapshot {
	s.t.Helper()
	var snapshot status.Snapshot
	testkit.Eventually(s.t, func() bool {
		var err error
		snapshot, err = s.client.Status(s.t.Context())
		return err == nil && len(snapshot.Services) > 0
	}, "the node answers")
	return snapshot
}

func (s *stack) address(service, listener string) string {
	for _, one := range s.status().Services {
		if one.Name == service {
			return one.Listen[listener]
		}
	}
	s.t.Fatalf("no service %s", service)
	return ""
}

type victim struct {
	name string
	pid  int
}

// victims are all processes but the keeper, in a fixed order.
func (s *stack) victims(snapshot status.Snapshot) []victim {
	var all []victim
	for _, service := range snapshot.Services {
		for _, i := range service.Instances {
			all = append(all, victim{i.Name, i.PID})
		}
	}
	for _, p := range snapshot.Platform {
		if p.Name != "keeper" {
			all = append(all, victim{p.Name, p.PID})
		}
	}
	for _, v := range all {
		if v.pid == 0 {
			s.t.Fatalf("%s has no process: %+v", v.name, snapshot)
		}
	}
	return all
}

// awaitBack waits until another process has taken the victim's place and everything is ready.
func (s *stack) awaitBack(v victim) {
	s.t.Helper()
	testkit.Eventually(s.t, func() bool {
		snapshot, err := s.client.Status(s.t.Context())
		if err != nil || len(snapshot.Services) == 0 {
			return false
		}
		for _, service := range snapshot.Services {
			for _, i := range service.Instances {
				if i.State != status.Ready || (i.Name == v.name && i.PID == v.pid) {
					return false
				}
			}
		}
		for _, p := range snapshot.Platform {
			if p.State != status.Ready || (p.Name == v.name && p.PID == v.pid) {
				return false
			}
		}
		return true
	}, v.name+" is back")
}

// awaitStored waits until both stores themselves hold this many events. What the broker says of its readers is not enough:
// it is from a moment ago, and an event on its way from one stream to the next is behind nobody.
func (s *stack) awaitStored(events int) {
	s.t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	lake := newLake()
	for !s.holds(lake, events) {
		if time.Now().After(deadline) {
			rows, _ := countArchive(s.t, s.data)
			s.t.Fatalf("%d events were accepted, and after 5 minutes the archive holds %d, the lake %d:\n%s", events, rows, len(lake.ids), s.run("status"))
		}
		<-tick.C
	}
}

// holds says whether both stores hold this many events, with what was read of the lake before.
func (s *stack) holds(l *lake, events int) bool {
	s.t.Helper()
	if l.read(s.t, s.data); len(l.ids) < events {
		return false
	}
	rows, _ := countArchive(s.t, s.data)
	return rows >= events
}

func (s *stack) dumpLogs() {
	files, _ := filepath.Glob(filepath.Join(s.state, "logs", "*.log")) // a fixed pattern
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err == nil {
			s.t.Logf("%s:\n%s", filepath.Base(path), data[max(0, len(data)-4000):])
		}
	}
}
