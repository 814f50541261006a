package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

const clockManifest = `project: test
streams:
  raw: { max_bytes: 64MiB }
  orders: { max_bytes: 64MiB, key: key, partitions: 4 }
  sorted: { max_bytes: 64MiB, key: key, partitions: 4 }
services:
  in: { builtin: ingest, listen: { http: 0 }, publishes: [raw] }
  spread: { builtin: route, scale: 2, consumes: [raw], publishes: [orders], route: { rules: [{ when: "n >= 0", to: orders }] } }
  sort: { builtin: route, scale: 2, consumes: [{ subject: orders, ordered: true }], publishes: [sorted], route: { rules: [{ when: "n >= 0", to: sorted }] } }
  sink: { builtin: sink, consumes: [sorted], to: { file: sorted, rotate: { age: 200ms } } }
`

// The wall clock of every process of a project jumps, by up to a day and back, while events flow: none is lost or doubled, nothing is
// restarted, the keys keep their order, and a service that is started right after gets in. The programs are built with a
// time.Now that adds what a file says to the wall clock and leaves the monotonic one alone, which is what a step of the
// kernel's clock is to a Go program. That compiles the standard library anew, so it is done when HOZO_CLOCK_JUMPS is set.
func TestEventsFlowThroughJumpsOfTheClock(t *testing.T) {
	if os.Getenv("HOZO_CLOCK_JUMPS") == "" {
		t.Skip("it compiles the standard library anew: set HOZO_CLOCK_JUMPS=1")
	}
	dir := testkit.TempDir(t)
	clock := filepath.Join(dir, "clock")
	t.Setenv("HOZO_TEST_CLOCK", clock) // not parallel: every process inherits it
	bin := jumpingHozo(t, dir)
	p := upWith(t, dir, bin, clockManifest)
	before := p.status(t)
	url := "http://" + service(before, "in").Listen["http"] + "/v1/ingest"
	var stop atomic.Bool
	var accepted atomic.Int64
	var sending sync.WaitGroup
	sending.Go(func() {
		for !stop.Load() {
			var body bytes.Buffer
			for k := range outageKeys {
				fmt.Fprintf(&body, "{\"key\":\"k%d\",\"n\":%d}\n", k, accepted.Load())
			}
			if postBatch(t, url, int(accepted.Load())+1, body.Bytes()) {
				accepted.Add(1)
			}
		}
	})
	defer sending.Wait()
	defer stop.Store(true)
	flows := func() {
		from := accepted.Load()
		testkit.Eventually(t, func() bool { return accepted.Load() > from+100 }, "events are accepted")
		p.await(t, "events are stored", func(s status.Snapshot) bool { return ready(s) && s.Streams[2].LastSeq > uint64(from) })
	}
	flows()
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 23 * time.Hour, 0} {
		if err := os.WriteFile(clock, []byte(fmt.Sprint(int(jump.Seconds()))), 0o600); err != nil {
			t.Fatal(err)
		}
		was := time.Now().Add(jump)
		p.await(t, "the clock has jumped", func(s status.Snapshot) bool { return s.Time.Sub(was).Abs() < time.Minute })
		killed := service(p.status(t), "spread").Instances[0].PID
		kill(t, killed)
		p.await(t, "the next one is ready", func(s status.Snapshot) bool { return ready(s) && service(s, "spread").Instances[0].PID != killed })
		flows()
	}
	stop.Store(true)
	sending.Wait()
	var drain status.Drain
	after := p.await(t, "everything is read", func(s status.Snapshot) bool { return drain.Behind(s) == "" && ready(s) })
	want, got := pids(before), pids(after)
	delete(want, "spread.1")
	delete(got, "spread.1")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("services were replaced (-before +after):\n%s", diff)
	}
	if letters, err := p.client.DeadLetters(testkit.Context(t), node.Filter{}, 0, 0); err != nil || len(letters) > 0 {
		t.Errorf("parked are %+v, %v", letters, err)
	}
	once(t, filepath.Join(dir, "sorted", "sorted"), int(accepted.Load()))
}

// once waits until a sink has n events of each key and checks that none is there twice. Instances of a stage that reads
// without order come between those of one key.
func once(t *testing.T, dir string, n int) {
	t.Helper()
	seen := map[order]int{}
	testkit.Eventually(t, func() bool {
		clear(seen)
		for _, o := range sunk(t, dir) {
			seen[o]++
		}
		return len(seen) >= n*outageKeys
	}, "everything is stored")
	for o, times := range seen {
		if times != 1 || o.N >= n {
			t.Errorf("%+v is stored %d times", o, times)
		}
	}
}

// jumpingHozo builds a hozo whose wall clock is wrong by the seconds in the file that HOZO_TEST_CLOCK names.
func jumpingHozo(t *testing.T, dir string) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src")
	text, err := os.ReadFile(filepath.Join(source, "time", "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const reading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if !bytes.Contains(text, []byte(reading)) {
		t.Fatal("time.Now of this version of Go reads its clocks in another way: adapt this test")
	}
	text = bytes.Replace(text, []byte(reading), []byte(reading+"\tsec += jumped.Load()\n"), 1)
	text = bytes.Replace(text, []byte("import (\n"), []byte("import (\n\t\"sync/atomic\"\n"), 1)
	text = append(text, "\nvar jumped atomic.Int64\n\nfunc Jump(seconds int64) { jumped.Store(seconds) }\n"...)
	const watcher = `package os

import "time"

func init() {
	path := Getenv("HOZO_TEST_CLOCK")
	if path == "" {
		return
	}
	look := func() {
		data, _ := ReadFile(path)
		seconds, sign := int64(0), int64(1)
		for _, c := range data {
			if c == '-' {
				sign = -1
			} else {
				seconds = seconds*10 + int64(c-'0')
			}
		}
		time.Jump(sign * seconds)
	}
	look()
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			look()
		}
	}()
}
`
	replace := map[string]string{}
	for original, changed := range map[string]string{filepath.Join(source, "time", "time.go"): string(text), filepath.Join(source, "os", "hozojump.go"): watcher} {
		path := filepath.Join(dir, filepath.Base(original))
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[original] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "hozo")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bin, "github.com/hozo-dev/hozo/cmd/hozo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build hozo: %v\n%s", err, out)
	}
	return bin
}
