package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/tidwall/gjson"
	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

func TestMain(m *testing.M) {
	// The test binary is also the child of the tests of processes: it waits for its standard input to end.
	if os.Getenv("BENCH_TEST_CHILD") != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestMedianAndSpread(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]sample{
		"-":                  nil,
		"2.00 (2.00..2.00)":  {2},
		"3.00 (1.00..12.0)":  {12, 1, 3},
		"15.0 (10.0..1000)":  {1000, 10, 20, 10},
		"-1.00 (-1.00..150)": {-1, 150, -1},
	} {
		if got := s.String(); got != want {
			t.Errorf("%v gives %s, want %s", []float64(s), got, want)
		}
	}
	if got := (sample{10, 30, 60}).over(sample{5, 10, 10}); !slices.Equal(got, sample{2, 3, 6}) {
		t.Errorf("pairs divide to %v", got)
	}
}

func TestOrderPutsEachContenderInEachPlaceOnce(t *testing.T) {
	t.Parallel()
	for place := range 3 {
		seen := map[int]bool{}
		for round := range 3 {
			seen[order(3, round)[place]] = true
		}
		if len(seen) != 3 {
			t.Errorf("place %d sees only %v", place, seen)
		}
	}
}

func TestLedgerTellsMissingDoubledAndChangedEvents(t *testing.T) {
	t.Parallel()
	fill := func(ids ...string) *ledger {
		l := newLedger(true)
		for _, id := range ids {
			l.add([]byte(id), []byte("PushEvent"))
		}
		return l
	}
	sent := fill("1", "2", "3")
	if wrong := sent.compare("x", fill("3", "1", "2")); len(wrong) != 0 {
		t.Errorf("same events in another order: %q", wrong)
	}
	for name, found := range map[string]*ledger{
		"missing": fill("1", "2"), "twice": fill("1", "2", "2"), "changed": fill("1", "2", "4"), "more": fill("1", "2", "3", "4"),
	} {
		if len(sent.compare("x", found)) == 0 {
			t.Errorf("%s: nothing was found wrong", name)
		}
	}
	other := fill("1", "2")
	other.add([]byte("3"), []byte("WatchEvent"))
	if len(sent.compare("x", other)) == 0 {
		t.Error("a changed type was not found")
	}
}

func TestParseStatSurvivesAnyProcessName(t *testing.T) {
	t.Parallel()
	p, err := parseStat("42 (a) b (c d) S 7 42 42 0 -1 0 0 0 0 0 100 50 25 25 20 0 1 0")
	if err != nil || p.pid != 42 || p.parent != 7 || p.cpu != 2*time.Second {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, bad := range []string{"", "42", "42 (a", "42 (a) S 1", "x (a) S 7 42 42 0 -1 0 0 0 0 0 1 1 1 1 1"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (a) b (c d) S 7 42 42 0 -1 0 0 0 0 0 100 50 25 25 20 0 1 0")
	f.Fuzz(func(_ *testing.T, stat string) { _, _ = parseStat(stat) })
}

func TestTreeHoldsAChildAndStopEndsIt(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	other := exec.Command(self)
	other.Env, other.Stdin = append(os.Environ(), "BENCH_TEST_CHILD=1"), in
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	all, err := tree([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(p process) bool { return p.pid == other.Process.Pid }) {
		t.Errorf("the tree lacks child %d", other.Process.Pid)
	}
	if err := errors.Join(other.Process.Kill(), other.Process.Release()); err != nil {
		t.Error(err)
	}

	c := children{dir: t.TempDir()}
	if err := c.start("sleeper", nil, nil, "", "sleep", "600"); err != nil {
		t.Fatal(err)
	}
	pid := c.pids()[0]
	if err := errors.Join(c.alive(), c.stop(syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after stop: %v", pid, err)
	}
}

func TestAnEndedChildIsNamedWithItsWords(t *testing.T) {
	t.Parallel()
	c := children{dir: t.TempDir()}
	if err := c.start("talker", nil, nil, "", "ls", "/no/such/folder"); err != nil {
		t.Fatal(err)
	}
	<-c.started[0].done
	if err := c.alive(); err == nil || !strings.Contains(err.Error(), "talker") || !strings.Contains(err.Error(), "/no/such/folder") {
		t.Errorf("alive says %v", err)
	}
	if err := c.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

func TestLoadsHoldWhatTheirLedgerSays(t *testing.T) {
	t.Parallel()
	s, err := newSupply("")
	if err != nil {
		t.Fatal(err)
	}
	found, sent := newLedger(true), newLedger(false)
	for range 2 {
		l := s.load(3e6)
		sent.merge(l.ledger)
		total := 0
		for i, body := range l.bodies {
			if bytes.Count(body, []byte("\n")) != l.counts[i] || len(body) > maxBody {
				t.Errorf("body %d of %d bytes does not hold %d events", i, len(body), l.counts[i])
			}
			total += len(body)
			for line := range bytes.Lines(body) {
				fields := gjson.GetManyBytes(line, "id", "type")
				found.add([]byte(fields[0].String()), []byte(fields[1].String()))
			}
		}
		if total != l.bytes || total < 3e6 {
			t.Errorf("%d bytes in bodies, load says %d", total, l.bytes)
		}
	}
	if wrong := sent.compare("loads", found); len(wrong) > 0 {
		t.Error(wrong)
	}
}

func TestLinesOfAFileGetNewIDsEachTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.json.gz")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := io.WriteString(z, `{"id":"1","type":"A","payload":{"id":5}}`+"\n"+`{"id":"2","type":"B"}`+"\n")
	if err := errors.Join(err, z.Close(), os.WriteFile(path, packed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := newSupply(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 10 {
		line := s.event()
		id := gjson.GetBytes(line, "id").String()
		if seen[id] || !gjson.ValidBytes(line) || line[len(line)-1] != '\n' {
			t.Errorf("bad event %s", line)
		}
		seen[id] = true
	}
}

// ingest is an HTTP service that takes events and refuses the first try of each batch.
type ingest struct {
	mu    sync.Mutex
	tries map[string]int
	found *ledger
}

func (in *ingest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	key := r.Header.Get(wire.HTTPProducer) + "/" + r.Header.Get(wire.HTTPBatch)
	if in.tries[key]++; in.tries[key] == 1 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	for line := range bytes.Lines(body) {
		fields := gjson.GetManyBytes(line, "id", "type")
		in.found.add([]byte(fields[0].String()), []byte(fields[1].String()))
	}
	_, _ = io.WriteString(w, `{"accepted":`+strconv.Itoa(bytes.Count(body, []byte("\n")))+`}`)
}

func TestSendDeliversEachBodyOnceThoughRefused(t *testing.T) {
	t.Parallel()
	in := &ingest{tries: map[string]int{}, found: newLedger(true)}
	server := httptest.NewServer(in)
	defer server.Close()
	s, err := newSupply("")
	if err != nil {
		t.Fatal(err)
	}
	l := s.load(3e6)
	result, err := send(t.Context(), server.URL, "test", l, 3)
	if err != nil {
		t.Fatal(err)
	}
	if result.accepted != l.ledger.Count || int(result.refused) != len(l.bodies) {
		t.Errorf("%d of %d accepted, %d of %d refused", result.accepted, l.ledger.Count, result.refused, len(l.bodies))
	}
	if wrong := l.ledger.compare("sent", in.found); len(wrong) > 0 {
		t.Error(wrong)
	}
}

func TestSendReportsAPartlyAcceptedBody(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"accepted":1}`)
	}))
	defer server.Close()
	s, err := newSupply("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), server.URL, "test", s.load(1e6), 2); !errors.Is(err, errWrong) {
		t.Errorf("got %v", err)
	}
}

func TestLakeIsCountedOnceItIsAtRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stream := filepath.Join(dir, "events.routed")
	if err := os.Mkdir(stream, 0o700); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	part := filepath.Join(stream, "00000000000000000001.part")
	if err := os.WriteFile(part, enc.EncodeAll([]byte(`{"id":"1","type":"A"}`+"\n"+`{"id":"2","type":"B"}`+"\n"), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &lake{dir: dir}
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.await(soon, 2); err == nil {
		t.Fatal("an unfinished file was counted")
	}
	before := time.Now()
	if err := os.Rename(part, filepath.Join(stream, "00000000000000000001-00000000000000000001.ndjson.zst")); err != nil {
		t.Fatal(err)
	}
	at, err := l.await(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if at.Before(before.Add(-time.Second)) || at.After(time.Now()) { // file systems' clocks tick coarsely
		t.Errorf("stored at %s, named after %s", at, before)
	}
	found := newLedger(true)
	if err := l.each(t.Context(), found.add); err != nil || found.Count != 2 || found.Types["B"] != 1 {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestManifestIsValidForBothSinks(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{filesName, sqliteName} {
		text, err := render(kind, "/bin", 18080)
		if err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Parse(text, filepath.Join(t.TempDir(), "hozo.yaml"), "")
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		to := m.Services[len(m.Services)-1].To
		if to == nil || (to.File != "") != (kind == filesName) || (to.SQLite != "") != (kind == sqliteName) {
			t.Errorf("%s stores to %+v", kind, to)
		}
	}
}

func TestMisuseIsExplained(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"nothing"}, {"e2e", "-rounds", "-1"}, {"e2e", "-no-such-flag"}, {"-quick"}} {
		var said bytes.Buffer
		if code := run(t.Context(), args, io.Discard, &said); code != 2 || said.Len() == 0 {
			t.Errorf("%q: exit status %d, %q", args, code, said.String())
		}
	}
}
