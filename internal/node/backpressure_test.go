package node_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// fullManifest has one stream for each policy that an HTTP client can meet, an intake before each and a sink behind it.
func fullManifest() string {
	streams, services := &strings.Builder{}, &strings.Builder{}
	for _, policy := range []string{"block", "fail", "drop_oldest"} {
		name := strings.ReplaceAll(policy, "_", "-")
		fmt.Fprintf(streams, "  %s: { max_bytes: 1MiB, full: %s }\n", name, policy)
		fmt.Fprintf(services, "  in-%[1]s: { builtin: ingest, listen: { http: 0 }, publishes: [%[1]s] }\n", name)
		fmt.Fprintf(services, "  out-%[1]s: { builtin: sink, consumes: [%[1]s], to: { file: %[1]s, rotate: { age: 200ms } } }\n", name)
	}
	return "project: test\nstreams:\n" + streams.String() + "services:\n" + services.String()
}

// intake posts numbered batches to one ingest service.
type intake struct {
	url      string
	random   *rand.ChaCha8
	body     []byte // of the batch that is not accepted yet
	accepted int    // batches
}

const intakeBatch = 10 // events of some 6 kB that nothing can compress

func (in *intake) post(t *testing.T) (status, retryAfter int, page string) {
	t.Helper()
	if in.body == nil {
		var body bytes.Buffer
		noise := make([]byte, 3000)
		for i := range intakeBatch {
			_, _ = in.random.Read(noise) // never fails
			fmt.Fprintf(&body, "{\"key\":\"%x\",\"n\":%d}\n", noise, in.accepted*intakeBatch+i)
		}
		in.body = body.Bytes()
	}
	req, err := http.NewRequestWithContext(testkit.Context(t), http.MethodPost, in.url, bytes.NewReader(in.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set(wire.HTTPProducer, "client")
	req.Header.Set(wire.HTTPBatch, strconv.Itoa(in.accepted+1))
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		in.accepted, in.body = in.accepted+1, nil
	}
	retryAfter, _ = strconv.Atoi(resp.Header.Get("Retry-After")) // 0 when there is none
	return resp.StatusCode, retryAfter, text.String()
}

// refused posts until the intake says no, and returns how.
func (in *intake) refused(t *testing.T) (status, retryAfter int, page string) {
	t.Helper()
	const most = 100 // batches of 60 kB fill a stream of 1 MiB some five times
	for range most {
		if status, retryAfter, page = in.post(t); status != http.StatusOK {
			return status, retryAfter, page
		}
	}
	t.Fatalf("%d batches are accepted by a stream of 1 MiB that nobody reads", most)
	panic("unreachable")
}

// A reader that stands still fills its stream. What that means for an HTTP client is the stream's policy; what was
// accepted is stored once, and everything goes on when the reader does.
func TestAReaderThatStandsStillIsFeltByTheHTTPClient(t *testing.T) {
	t.Parallel()
	dir := testkit.TempDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := upWith(t, dir, self, fullManifest())
	s := p.status(t)
	var stopped []int
	client := func(name string) *intake {
		pid := service(s, "out-"+name).Instances[0].PID
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stopped = append(stopped, pid)
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it may have ended
		url := "http://" + service(s, "in-"+name).Listen["http"] + "/v1/ingest"
		return &intake{url: url, random: rand.NewChaCha8([32]byte{1})}
	}
	block, fail, dropOldest := client("block"), client("fail"), client("drop-oldest")

	if code, after, page := block.refused(t); code != http.StatusServiceUnavailable || after < 1 || !strings.Contains(page, "ingest/stream-full") {
		t.Errorf("full: block answers %d, Retry-After %d: %s", code, after, page)
	}
	if code, after, page := fail.refused(t); code != http.StatusInsufficientStorage || after != 0 || !strings.Contains(page, "ingest/stream-full") {
		t.Errorf("full: fail answers %d, Retry-After %d: %s", code, after, page)
	}
	for range 60 {
		if code, _, page := dropOldest.post(t); code != http.StatusOK {
			t.Fatalf("full: drop_oldest answers %d: %s", code, page)
		}
	}
	// Each batch is a frame, so what the client was told, what is left and what is counted as dropped must agree.
	info, err := p.admin(t).Stream(testkit.Context(t), "drop-oldest")
	if err != nil {
		t.Fatal(err)
	}
	left := info.CachedInfo().State
	clients := map[string]*intake{"block": block, "fail": fail, "drop-oldest": dropOldest}
	upToDate := func(s status.Snapshot) bool { // a status is a little old
		for _, stream := range s.Streams {
			if stream.LastSeq != uint64(clients[stream.Name].accepted) {
				return false
			}
		}
		return len(s.Streams) == len(clients)
	}
	for _, stream := range p.await(t, "all that was accepted is in the status", upToDate).Streams {
		want := uint64(0)
		if stream.Name == "drop-oldest" {
			want = uint64(dropOldest.accepted) - left.Msgs
		}
		if stream.Dropped != want || stream.Name == "drop-oldest" && want == 0 {
			t.Errorf("stream %s has dropped %d frames by its status, want %d", stream.Name, stream.Dropped, want)
		}
	}

	for _, pid := range stopped {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	for _, in := range []*intake{block, fail} {
		testkit.Eventually(t, func() bool { code, _, _ := in.post(t); return code == http.StatusOK }, "the refused batch is accepted")
	}
	var drain status.Drain
	after := p.await(t, "everything is read", func(s status.Snapshot) bool { return drain.Behind(s) == "" && ready(s) && upToDate(s) })
	for name, pid := range pids(s) {
		if pids(after)[name] != pid {
			t.Errorf("%s was replaced", name)
		}
	}
	for _, name := range []string{"block", "fail"} {
		in := clients[name]
		all := sunk(t, filepath.Join(dir, name, name))
		if len(all) != in.accepted*intakeBatch {
			t.Errorf("%s: %d events are stored, %d were accepted", name, len(all), in.accepted*intakeBatch)
		}
		inOrder(t, name, all)
	}
	// What the stopped sink had been sent before it was dropped is stored too, so there are at least those that were left.
	all := sunk(t, filepath.Join(dir, "drop-oldest", "drop-oldest"))
	if len(all) < int(left.Msgs)*intakeBatch || all[len(all)-1].N != dropOldest.accepted*intakeBatch-1 {
		t.Errorf("%d events are stored, the stream held %d frames at last", len(all), left.Msgs)
	}
	inOrder(t, "drop-oldest", all)
}

// inOrder checks that no event is there twice: each is newer than the one before it.
func inOrder(t *testing.T, name string, all []order) {
	t.Helper()
	for i := 1; i < len(all); i++ {
		if all[i].N <= all[i-1].N {
			t.Fatalf("%s: event %d is stored behind %d", name, all[i].N, all[i-1].N)
		}
	}
}
