package firehose_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/feed"
	"github.com/hozo-dev/hozo/internal/ghevents"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// small makes the streams fit on a disk of 64 MB.
var small = []string{"max_bytes: 4GiB", "max_bytes: 8MiB"}

// While events are sent, the disk that holds the state folder, the database and the files runs low on space, and later
// is filled to its last byte for some ten seconds. Senders are told to wait, the status says what is wrong, every
// process lives on, and in the end each accepted event is stored once.
func TestFullDiskStopsTheIntakeAndNothingElse(t *testing.T) {
	disk := testkit.Tmpfs(t, 64<<20)
	stack := startStack(t, disk, small...)
	ingest := "http://" + stack.address("ingest", "http") + "/v1/ingest"
	source := newSource(t)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	sender := feed.New(ingest, feed.Config{BatchBytes: 64 << 10})
	done := make(chan error, 1)
	go func() { done <- sender.Send(ctx, source.events) }() // done is read below, and the source's end ends it in any case
	source.send(800)
	testkit.Eventually(t, func() bool { return sender.Progress().Accepted > 400 }, "events are accepted")
	before := pids(stack.status())

	// A twentieth of the disk is the reserve: 3.2 MiB. What is under way is stored first, or it would take the rest too.
	stored := newLake()
	testkit.Eventually(t, func() bool { return stack.holds(stored, int(sender.Progress().Accepted)) }, "everything accepted is stored")
	filler := fillDisk(t, disk, 2<<20)
	source.send(600)
	refused := ""
	for refused != "ingest/store-full" && ctx.Err() == nil {
		refused = source.refused(t, ingest).problem.Code
	}
	if ctx.Err() != nil {
		t.Fatalf("with little space left requests are refused by %s", refused)
	}
	stack.checkFull(before)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { return sender.Progress().Accepted > 1200 }, "the sender goes on") // its last lines wait for a full batch

	source.send(300) // the disk becomes full under it
	filler = fillDisk(t, disk, 0)
	source.send(300) // and a quick sender meets it in any case
	codes := map[string]int{}
	for full := time.Now().Add(10 * time.Second); time.Now().Before(full); {
		codes[source.refused(t, ingest).problem.Code]++
	}
	t.Logf("requests refused on a full disk: %v", codes)
	stack.checkFull(before)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	source.send(500)
	source.close()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("send: %v", err)
		}
	case <-ctx.Done():
		t.Fatalf("the sender does not end: %+v", sender.Progress())
	}
	sent := sender.Progress()
	t.Logf("%d events accepted, %d retries, %d repeats recognised", sent.Accepted, sent.Retries, sent.Duplicates)
	if sent.Accepted != 2500 || sent.Rejected != 0 || sent.Retries == 0 {
		t.Errorf("sent 2500 events: %+v", sent)
	}
	testkit.Eventually(t, func() bool { return source.single(t, ingest).status == http.StatusOK }, "the last refused event is accepted")
	stack.awaitStored(2500 + source.stored)
	testkit.Eventually(t, func() bool {
		return !slices.ContainsFunc(stack.status().Problems, func(p status.Problem) bool {
			return p.Code != "instance/log-dropped" // what a log on the full disk has lost stays lost, and is said as long as the process lives
		})
	}, "no problem is left")
	stack.sameProcesses(before, "in the end")
	stack.down()
	checkStores(t, stack.data, 2500+source.stored, source.types)
}

// checkFull checks what a full disk must not change and what must be said of it.
func (s *stack) checkFull(before map[string]int) {
	s.t.Helper()
	resp, err := http.Get("http://" + s.address("api", "http") + "/stats")
	if err != nil {
		s.t.Fatalf("the api on a full disk: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.t.Errorf("the api on a full disk answers %s", resp.Status)
	}
	page := s.run("status")
	if !strings.Contains(page, "problem: ") || !strings.Contains(page, "[disk/low]") || !strings.Contains(page, "fix: free space there") {
		s.t.Errorf("hozo status on a full disk:\n%s", page)
	}
	s.sameProcesses(before, "while the disk is full")
}

// fillDisk takes what is left in dir but for some bytes and keeps it taken. It returns the file that does so.
func fillDisk(t *testing.T, dir string, but int64) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 4<<10); ; {
		space, err := broker.SpaceOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		if but > 0 && space.FreeBytes <= but {
			return path
		}
		if _, err = file.Write(block); errors.Is(err, syscall.ENOSPC) && but == 0 {
			return path
		}
		if err != nil {
			t.Fatalf("fill the disk but for %d bytes: %v", but, err)
		}
	}
}

// source is events to send, and what became of single ones.
type source struct {
	events *io.PipeReader
	out    *io.PipeWriter
	queue  chan [][]byte
	ended  chan struct{}

	generator *ghevents.Generator
	next      int
	types     map[string]int // of all that are or will be accepted
	stored    int            // single events that were accepted
	current   []byte         // single event that is not accepted yet
	closed    bool
}

func newSource(t *testing.T) *source {
	s := &source{queue: make(chan [][]byte, 8), ended: make(chan struct{}), generator: ghevents.New(11), types: map[string]int{}} // 8: more than a test sends
	s.events, s.out = io.Pipe()
	go func() {
		defer close(s.ended)
		for lines := range s.queue {
			for _, line := range lines {
				if _, err := s.out.Write(line); err != nil {
					return // the reader has gone
				}
			}
		}
		_ = s.out.Close() // it never fails
	}()
	t.Cleanup(func() {
		s.close()
		_ = s.events.Close() // it never fails
		testkit.Wait(t, s.ended)
	})
	return s
}

// line makes an event with an id of its own.
func (s *source) line() []byte {
	s.next++
	return ghevents.WithID(nil, s.generator.Next(nil), fmt.Sprintf("event-%d", s.next))
}

// send puts n events on their way.
func (s *source) send(n int) {
	lines := make([][]byte, n)
	for i := range lines {
		lines[i] = s.line()
		s.types[typeOf(lines[i])]++
	}
	s.queue <- lines
}

func (s *source) close() {
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
}

// answer is what ingest says to one request.
type answer struct {
	status     int
	retryAfter int // seconds
	accepted   int
	rejected   int
	problem    struct{ Code, What, Fix string }
}

// single posts the current single event and returns the answer; once it is accepted, the next one is current. It is
// numbered, because one that was refused may have been stored: the broker can end between the write and its answer.
func (s *source) single(t *testing.T, url string) answer {
	t.Helper()
	if s.current == nil {
		s.current = s.line()
	}
	a := request(t, url, map[string]string{
		"Content-Type": "application/x-ndjson", wire.HTTPProducer: "single", wire.HTTPBatch: strconv.Itoa(s.stored + 1),
	}, bytes.NewReader(s.current))
	if a.status == http.StatusOK {
		s.stored++
		s.types[typeOf(s.current)]++
		s.current = nil
	}
	return a
}

// refused posts single events until one is refused, and returns that answer, which must tell a client what to do.
func (s *source) refused(t *testing.T, url string) answer {
	t.Helper()
	for {
		a := s.single(t, url)
		if a.status == http.StatusOK {
			continue
		}
		if a.status != http.StatusServiceUnavailable || a.retryAfter < 1 || a.problem.What == "" || a.problem.Fix == "" {
			t.Fatalf("refused with %+v", a)
		}
		return a
	}
}

// request posts a body and returns the answer, which must come.
func request(t *testing.T, url string, header map[string]string, body io.Reader) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(testkit.Context(t), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	var page struct {
		Accepted      int
		RejectedTotal int `json:"rejected_total"`
		Error         struct{ Code, What, Fix string }
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&page); err != nil {
		t.Fatalf("decode the answer %s: %v", resp.Status, err)
	}
	a := answer{status: resp.StatusCode, accepted: page.Accepted, rejected: page.RejectedTotal, problem: page.Error}
	a.retryAfter, _ = strconv.Atoi(resp.Header.Get("Retry-After")) // absent: 0
	return a
}

// pids maps every process but the keeper's services to its pid.
func pids(s status.Snapshot) map[string]int {
	all := map[string]int{}
	for _, service := range s.Services {
		for _, i := range service.Instances {
			all[i.Name] = i.PID
		}
	}
	for _, p := range s.Platform {
		all[p.Name] = p.PID
	}
	return all
}

// sameProcesses checks that nothing was restarted and everything is ready.
func (s *stack) sameProcesses(before map[string]int, when string) {
	s.t.Helper()
	now := s.status()
	if diff := cmp.Diff(before, pids(now)); diff != "" {
		s.t.Errorf("processes were replaced %s (-before +now):\n%s", when, diff)
	}
	for _, service := range now.Services {
		for _, i := range service.Instances {
			if i.State != status.Ready || i.Restarts != 0 {
				s.t.Errorf("%s %s: %+v", i.Name, when, i)
			}
		}
	}
	if i := slices.IndexFunc(now.Platform, func(p status.Process) bool { return p.State != status.Ready || p.Restarts != 0 }); i >= 0 {
		s.t.Errorf("%s: %+v", when, now.Platform[i])
	}
}
