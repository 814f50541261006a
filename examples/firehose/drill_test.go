package firehose_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/feed"
	"github.com/hozo-dev/hozo/internal/ghevents"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// The drill sends rounds of events while every process of the tree but the keeper is killed with -9 in turn. Afterwards
// both sinks hold every accepted event exactly once. HOZO_DRILL_KILLS, HOZO_DRILL_ROUNDS and HOZO_DRILL_EVENTS (a file of
// NDJSON, gzip or not) make it longer and real; the defaults suit CI.
func TestKillingEverythingInTurnLosesAndDoublesNothing(t *testing.T) {
	kills, least := fromEnv(t, "HOZO_DRILL_KILLS", 12), fromEnv(t, "HOZO_DRILL_ROUNDS", 5)
	round := drillEvents(t)
	stack := startStack(t)
	ingest := stack.address("ingest", "http")

	// The sender goes on round after round until the killing is over.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	over := make(chan struct{})
	done := make(chan error, 1)
	source := &rounds{lines: round, over: over, least: least}
	sender := feed.New("http://"+ingest+"/v1/ingest", feed.Config{BatchBytes: 256 << 10})
	go func() { done <- sender.Send(ctx, source) }()

	killed := map[string]int{}
	for i := 0; i < kills; {
		s := stack.status()
		victims := stack.victims(s)
		v := victims[i%len(victims)]
		if err := syscall.Kill(v.pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s (pid %d): %v", v.name, v.pid, err)
		}
		killed[v.name]++
		i++
		stack.awaitBack(v)
	}
	close(over)
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("send: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the sender does not end")
	}
	sent := sender.Progress()
	t.Logf("killed %v; %d rounds, %d events accepted (%.0f MB), %d retries, %d repeats recognised", killed, source.round, sent.Accepted, float64(sent.Bytes)/1e6, sent.Retries, sent.Duplicates)
	if sent.Accepted != int64(source.sent) || sent.Rejected != 0 {
		t.Fatalf("sent %d events, accepted %d, rejected %d", source.sent, sent.Accepted, sent.Rejected)
	}
	stack.awaitStored(sent.Accepted)
	stack.down()
	checkStores(t, stack.dir, source.sent, source.types)
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// drillEvents returns the lines of one round.
func drillEvents(t *testing.T) [][]byte {
	t.Helper()
	if path := os.Getenv("HOZO_DRILL_EVENTS"); path != "" {
		in, err := feed.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		all, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.SplitAfter(bytes.TrimSuffix(all, []byte{'\n'}), []byte{'\n'})
	}
	g := ghevents.New(7)
	lines := make([][]byte, 2000)
	for i := range lines {
		lines[i] = g.Next(nil)
	}
	return lines
}

// rounds is a reader of the same lines again and again, each round with ids of its own, until over is closed.
type rounds struct {
	lines [][]byte
	over  <-chan struct{}
	least int // rounds to send in any case

	round, line, sent int
	types             map[string]int
	rest              []byte
}

func (r *rounds) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.line == len(r.lines) {
			r.line, r.round = 0, r.round+1
		}
		if r.line == 0 && r.round >= r.least {
			select {
			case <-r.over:
				return 0, io.EOF
			default:
			}
		}
		line := r.lines[r.line]
		r.rest = ghevents.WithID(nil, line, fmt.Sprintf("%d-%d", r.round, r.line))
		if !bytes.HasSuffix(r.rest, []byte{'\n'}) {
			r.rest = append(r.rest, '\n')
		}
		if r.types == nil {
			r.types = map[string]int{}
		}
		r.types[typeOf(line)]++
		r.line++
		r.sent++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// stack is a running firehose in a folder of its own.
type stack struct {
	t      *testing.T
	dir    string
	hozo   string
	client *node.Client
}

func startStack(t *testing.T) *stack {
	t.Helper()
	dir := testkit.TempDir(t)
	s := &stack{t: t, dir: dir, hozo: filepath.Join(dir, "bin", "hozo"), client: node.NewClient(filepath.Join(dir, ".hozo"))}
	programs := map[string]string{"hozo": "../../cmd/hozo", "classify": "./classify", "enrich": "./enrich", "report": "./report", "api": "./api"}
	for name, pkg := range programs {
		run(t, ".", "go", "build", "-o", filepath.Join(dir, "bin", name), pkg)
	}
	manifest, err := os.ReadFile("hozo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("http: 8080", "http: 0", "http: 8081", "http: 0").Replace(string(manifest))
	if err := os.WriteFile(filepath.Join(dir, "hozo.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.dumpLogs()
		}
		s.down()
	})
	run(t, dir, s.hozo, "up", "-d", "--no-build")
	return s
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (s *stack) down() { run(s.t, s.dir, s.hozo, "down") }

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

// awaitStored waits until both sinks have reported every event and no reader is behind.
func (s *stack) awaitStored(accepted int64) {
	s.t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		behind := []string{}
		snapshot := s.status()
		for _, stream := range snapshot.Streams {
			for _, c := range stream.Consumers {
				if c.Lag > 0 || c.InFlight > 0 {
					behind = append(behind, fmt.Sprintf("%s at %s: %d+%d", c.Service, stream.Name, c.Lag, c.InFlight))
				}
			}
		}
		if len(snapshot.Streams) == 4 && len(behind) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d events were accepted, and after 5 minutes these are behind: %v", accepted, behind)
		}
		<-tick.C
	}
}

func (s *stack) dumpLogs() {
	files, _ := filepath.Glob(filepath.Join(s.dir, ".hozo", "logs", "*.log")) // a fixed pattern
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err == nil {
			s.t.Logf("%s:\n%s", filepath.Base(path), data[max(0, len(data)-4000):])
		}
	}
}
