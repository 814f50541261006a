package builtin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

func TestAcceptedEventsAreStoredInOrder(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{})
	a := post(t, s.url+"/v1/ingest", strings.NewReader("{\"a\":1}\r\n\n  {\"b\": 2}\t\n[3]"))
	if a.status != http.StatusOK || a.Accepted != 3 || a.Stream != rawStream || a.FirstSeq != 1 || a.LastSeq != 1 || a.RejectedTotal != 0 || a.Duplicate {
		t.Fatalf("answer is %+v", a)
	}
	a = post(t, s.url+"/v1/ingest/events.raw", bytes.NewReader(gzipped(t, []byte("{\"c\":4}\n"))), "Content-Encoding", "gzip")
	if a.status != http.StatusOK || a.FirstSeq != 2 {
		t.Fatalf("answer to gzip is %+v", a)
	}
	a = post(t, s.url+"/v1/ingest", bytes.NewReader(zstded(t, []byte("{\"d\":5}"))), "Content-Encoding", "zstd", "Content-Type", "application/json; charset=utf-8")
	if a.status != http.StatusOK || a.LastSeq != 3 {
		t.Fatalf("answer to zstd is %+v", a)
	}
	if a = post(t, s.url+"/v1/ingest", strings.NewReader("\n\r\n \n")); a.status != http.StatusOK || a.Accepted != 0 {
		t.Fatalf("answer to blank lines is %+v", a)
	}
	wantEvents(t, b, `{"a":1}`, `{"b": 2}`, `[3]`, `{"c":4}`, `{"d":5}`)
	if n := s.in.conn.Counters().EventsIn.Load(); n != 5 {
		t.Errorf("%d events counted, want 5", n)
	}
}

func TestBigBodyIsCutIntoFrames(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{})
	for _, headers := range [][]string{nil, {wire.HTTPProducer, "p", wire.HTTPBatch, "1"}} {
		before := len(events(t, b, rawStream))
		a := post(t, s.url+"/v1/ingest", bytes.NewReader(numbered(0, 9000, 80)), headers...)
		if a.status != http.StatusOK || a.Accepted != 9000 || a.LastSeq-a.FirstSeq < 2 {
			t.Fatalf("answer is %+v", a)
		}
		got := events(t, b, rawStream)[before:]
		if want := strings.Split(strings.TrimSuffix(string(numbered(0, 9000, 80)), "\n"), "\n"); !slices.Equal(got, want) {
			t.Fatalf("%d events, not the 9000 in order", len(got))
		}
	}
}

func TestGoodNeighboursOfBadLinesLand(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{MaxLine: 100})
	deep := strings.Repeat("[", 20000) // without the check of depth this would recurse 20,000 deep
	body := "{\"a\":1}\n{\"a\":\n\xff\"\n\"" + strings.Repeat("x", 100) + "\"\n" + deep + "\n{} {}\n{\"b\":2}\n\"\x01\"\n{\"c\":\"\xc3\"}\n" + `"` + strings.Repeat("y", 98) + `"`
	a := post(t, s.url+"/v1/ingest", strings.NewReader(body))
	var got []string
	for _, r := range a.Rejected {
		got = append(got, fmt.Sprintf("%d %s", r.Line, strings.TrimPrefix(r.Code, "ingest/")))
		if r.Reason == "" {
			t.Errorf("line %d has no reason", r.Line)
		}
	}
	want := []string{"2 invalid-json", "3 invalid-utf8", "4 line-too-long", "5 line-too-long", "6 invalid-json", "8 invalid-json", "9 invalid-utf8"}
	if a.status != http.StatusOK || a.Accepted != 3 || a.RejectedTotal != len(want) || !slices.Equal(got, want) {
		t.Fatalf("answer is %+v\nrejected %q", a, got)
	}
	wantEvents(t, b, `{"a":1}`, `{"b":2}`, `"`+strings.Repeat("y", 98)+`"`)
}

func TestDeepNestingIsRejectedAndNotFollowed(t *testing.T) {
	t.Parallel()
	s := serveIngest(t, testkit.Broker(t), manifest.Ingest{})
	half := 400_000
	a := post(t, s.url+"/v1/ingest", strings.NewReader("1\n"+strings.Repeat("[", half)+strings.Repeat("]", half)))
	if a.status != http.StatusOK || a.RejectedTotal != 1 {
		t.Fatalf("answer is %d, %d rejected", a.status, a.RejectedTotal)
	}
}

func TestRejectionsAreCountedBeyondThoseNamed(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{})
	a := post(t, s.url+"/v1/ingest", strings.NewReader(strings.Repeat("x\n", 250)+"1\n"))
	if a.status != http.StatusOK || len(a.Rejected) != 100 || a.RejectedTotal != 250 || a.Accepted != 1 {
		t.Fatalf("%d: %d named of %d", a.status, len(a.Rejected), a.RejectedTotal)
	}
	a = post(t, s.url+"/v1/ingest", strings.NewReader(strings.Repeat("x\n", 250)))
	if a.status != http.StatusBadRequest || a.Problem.Code != "ingest/all-bad" || len(a.Rejected) != 100 || a.RejectedTotal != 250 {
		t.Fatalf("%d %s: %d named of %d", a.status, a.Problem.Code, len(a.Rejected), a.RejectedTotal)
	}
	wantEvents(t, b, "1")
}

// endless is a body without an end.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "1\n"[i%2]
	}
	e.read.Add(int64(len(p)))
	return len(p), nil
}

func TestRefusedRequestsStoreNothing(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{MaxBody: 1 << 20})
	good := numbered(0, 2000, 50)
	bomb := bytes.Repeat([]byte("1\n"), 8<<20)
	empty := gzipped(t, nil)
	corrupt := gzipped(t, good)
	corrupt[len(corrupt)/2] ^= 0x55
	for name, c := range map[string]struct {
		path    string
		body    io.Reader
		headers []string
		status  int
		code    string
	}{
		"truncated gzip":        {"", bytes.NewReader(gzipped(t, good)[:900]), []string{"Content-Encoding", "gzip"}, 400, "ingest/truncated"},
		"gzip without trailer":  {"", bytes.NewReader(gzipped(t, good)[:len(gzipped(t, good))-4]), []string{"Content-Encoding", "gzip"}, 400, "ingest/truncated"},
		"empty gzip":            {"", strings.NewReader(""), []string{"Content-Encoding", "gzip"}, 400, "ingest/truncated"},
		"corrupt gzip":          {"", bytes.NewReader(corrupt), []string{"Content-Encoding", "gzip"}, 400, "ingest/encoding"},
		"no gzip":               {"", bytes.NewReader(good), []string{"Content-Encoding", "gzip"}, 400, "ingest/encoding"},
		"truncated zstd":        {"", bytes.NewReader(zstded(t, good)[:200]), []string{"Content-Encoding", "zstd"}, 400, "ingest/truncated"},
		"no zstd":               {"", bytes.NewReader(good), []string{"Content-Encoding", "zstd"}, 400, "ingest/encoding"},
		"zstd with --long":      {"", bytes.NewReader(longZstd(t)), []string{"Content-Encoding", "zstd"}, 400, "ingest/window"},
		"gzip bomb":             {"", bytes.NewReader(gzipped(t, bomb)), []string{"Content-Encoding", "gzip"}, 413, "ingest/body-too-large"},
		"zstd bomb":             {"", bytes.NewReader(zstded(t, bomb)), []string{"Content-Encoding", "zstd"}, 413, "ingest/body-too-large"},
		"endless empty members": {"", &repeated{what: empty}, []string{"Content-Encoding", "gzip"}, 413, "ingest/body-too-large"},
		"large body":            {"", bytes.NewReader(bomb[:1<<20+2]), nil, 413, "ingest/body-too-large"},
		"larger body":           {"", bytes.NewReader(bomb), nil, 413, "web/body-too-large"},
		"other encoding":        {"", bytes.NewReader(good), []string{"Content-Encoding", "br"}, 415, "ingest/content-encoding"},
		"form":                  {"", bytes.NewReader(good), []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "ingest/content-type"},
		"no type":               {"", bytes.NewReader(good), []string{"Content-Type", ""}, 415, "ingest/content-type"},
		"other stream":          {"/events.other", bytes.NewReader(good), nil, 404, "ingest/no-stream"},
		"stream of producers":   {"/events.raw.in.x", bytes.NewReader(good), nil, 404, "ingest/no-stream"},
		"other path":            {"ed", bytes.NewReader(good), nil, 404, "ingest/no-page"},
		"producer alone":        {"", bytes.NewReader(good), []string{wire.HTTPProducer, "p"}, 400, "ingest/producer"},
		"batch alone":           {"", bytes.NewReader(good), []string{wire.HTTPBatch, "1"}, 400, "ingest/producer"},
		"batch zero":            {"", bytes.NewReader(good), []string{wire.HTTPProducer, "p", wire.HTTPBatch, "0"}, 400, "ingest/producer"},
		"producer with a dot":   {"", bytes.NewReader(good), []string{wire.HTTPProducer, "a.>", wire.HTTPBatch, "1"}, 400, "ingest/producer"},
	} {
		a, err := try(t, s.url+"/v1/ingest"+c.path, c.body, c.headers...)
		if err != nil && (c.status != http.StatusRequestEntityTooLarge || a.status == http.StatusOK) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err == nil && (a.status != c.status || a.Problem.Code != c.code || a.Problem.Fix == "") {
			t.Errorf("%s: %d %+v, want %d %s", name, a.status, a.Problem, c.status, c.code)
		}
	}
	// The server hangs up on a body without an end; whether the client sees the answer before is up to the network.
	body := &endless{}
	if a, err := try(t, s.url+"/v1/ingest", body); err == nil && a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("endless body: %d %+v", a.status, a.Problem)
	}
	if n := body.read.Load(); n > 64<<20 {
		t.Errorf("%d bytes of the endless body were taken", n)
	}
	wantEvents(t, b)
	if used := s.in.bodies.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget are lost", used)
	}
}

// repeated is one thing over and over, for longer than any limit.
type repeated struct {
	what []byte
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.what[r.at%len(r.what)]
		r.at++
	}
	if r.at > 1<<30 {
		return 0, errors.New("nobody hangs up")
	}
	return len(p), nil
}

// longZstd is a frame that asks for a window of 32 MiB.
func longZstd(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(32<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(numbered(0, 100, 10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil { // a frame whose size was not known from the start names its window
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOtherMethodsAreToldWhatIsAllowed(t *testing.T) {
	t.Parallel()
	s := serveIngest(t, testkit.Broker(t), manifest.Ingest{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/ingest", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" {
		t.Fatalf("GET gives %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
}

func TestSeveralSubjectsNeedTheirNameInThePath(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := b.Grant(t, wire.Grant{Service: "ingest", Publish: []wire.Route{
		{Subject: "events.a", Stream: "events.a"}, {Subject: "events.b.web", Stream: "events.b"},
	}})
	s := serveGrant(t, b, g, manifest.Ingest{})
	if a := post(t, s.url+"/v1/ingest", strings.NewReader("1")); a.status != http.StatusNotFound || !strings.Contains(a.Problem.Fix, "/v1/ingest/events.b.web") {
		t.Fatalf("without a name: %d %+v", a.status, a.Problem)
	}
	if a := post(t, s.url+"/v1/ingest/events.b.web", strings.NewReader("1")); a.status != http.StatusOK || a.Stream != "events.b" {
		t.Fatalf("with a name: %d %+v", a.status, a)
	}
	if got := events(t, b, "events.b"); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("events.b holds %q", got)
	}
}

func TestStalledBodyIsCut(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n{\"a\":1}\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn) // until the server hangs up
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got, []byte("408 Request Timeout")) || !bytes.Contains(got, []byte("ingest/stalled")) {
		t.Fatalf("answer is %q", got)
	}
	wantEvents(t, b)
}

// wantRetryAfter checks that a refusal says when to come back.
func wantRetryAfter(t *testing.T, a answer, status int, code string) {
	t.Helper()
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != status || a.Problem.Code != code || err != nil || seconds < 1 || seconds > 36 {
		t.Fatalf("%d %+v Retry-After %q, want %d %s", a.status, a.Problem, a.header.Get("Retry-After"), status, code)
	}
}

func TestFullBudgetGives429(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{MaxBody: 1 << 20, InFlight: 1 << 20})
	if !s.in.bodies.budget.take(s.in.bodies.budget.limit - 1000) {
		t.Fatal("the budget is not empty")
	}
	wantRetryAfter(t, post(t, s.url+"/v1/ingest", bytes.NewReader(numbered(0, 100, 100))), http.StatusTooManyRequests, "ingest/busy")
	if a := post(t, s.url+"/v1/ingest", strings.NewReader("1")); a.status != http.StatusOK {
		t.Fatalf("a request that fits: %d %+v", a.status, a.Problem)
	}
	s.in.bodies.budget.give(s.in.bodies.budget.limit - 1000)
	if a := post(t, s.url+"/v1/ingest", bytes.NewReader(numbered(0, 100, 100))); a.status != http.StatusOK {
		t.Fatalf("with room again: %d %+v", a.status, a.Problem)
	}
}

func TestFullStreamGives503AndRecovers(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: rawStream, MaxBytes: 100 << 10})
	s := serveIngest(t, b, manifest.Ingest{})
	line := func(n int) []byte { return fmt.Appendf(nil, `{"n":%d,"pad":"%x"}`, n, noise(n)) }
	n := 0
	var a answer
	for ; n < 100; n++ {
		if a = post(t, s.url+"/v1/ingest", bytes.NewReader(line(n)), wire.HTTPProducer, "p", wire.HTTPBatch, strconv.Itoa(n+1)); a.status != http.StatusOK {
			break
		}
	}
	wantRetryAfter(t, a, http.StatusServiceUnavailable, "ingest/stream-full")
	wantRetryAfter(t, post(t, s.url+"/v1/ingest", bytes.NewReader(line(n))), http.StatusServiceUnavailable, "ingest/stream-full")
	b.Declare(t, broker.StreamSpec{Name: rawStream, MaxBytes: 1 << 20})
	a = post(t, s.url+"/v1/ingest", bytes.NewReader(line(n)), wire.HTTPProducer, "p", wire.HTTPBatch, strconv.Itoa(n+1))
	if a.status != http.StatusOK || a.Duplicate {
		t.Fatalf("with room again: %d %+v", a.status, a)
	}
	if got := len(events(t, b, rawStream)); got != n+1 {
		t.Fatalf("%d events, want %d", got, n+1)
	}
}

// noise is bytes that do not compress.
func noise(seed int) []byte {
	out := make([]byte, 4096)
	x := uint64(seed)*2654435761 + 1
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte(x)
	}
	return out
}

func TestBrokerAwayGives503AndReadinessSaysSo(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{})
	if a := post(t, s.url+"/v1/ingest", strings.NewReader("1")); a.status != http.StatusOK {
		t.Fatalf("before: %d", a.status)
	}
	b.Stop(t)
	var wg sync.WaitGroup
	var plain, paired answer
	wg.Go(func() { plain, _ = try(t, s.url+"/v1/ingest", strings.NewReader("2")) })
	wg.Go(func() {
		paired, _ = try(t, s.url+"/v1/ingest", strings.NewReader("3"), wire.HTTPProducer, "p", wire.HTTPBatch, "1")
	})
	wg.Wait()
	wantRetryAfter(t, plain, http.StatusServiceUnavailable, "ingest/broker-away")
	wantRetryAfter(t, paired, http.StatusServiceUnavailable, "ingest/broker-away")
	if err := s.in.ready(); fault.Code(err) != "ingest/broker-away" {
		t.Errorf("ready says %v", err)
	}
	// By now it has been away for longer than a request would wait: the answer comes at once.
	wantRetryAfter(t, post(t, s.url+"/v1/ingest", strings.NewReader("4")), http.StatusServiceUnavailable, "ingest/broker-away")
	b.Start(t)
	testkit.Eventually(t, s.in.conn.Connected, "connected again")
	if a := post(t, s.url+"/v1/ingest", strings.NewReader("3"), wire.HTTPProducer, "p", wire.HTTPBatch, "1"); a.status != http.StatusOK {
		t.Fatalf("after: %d %+v", a.status, a.Problem)
	}
}

func TestGrantWithoutASubjectIsAFault(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	_, err := newIngest(connect(t, b, b.Grant(t, wire.Grant{Service: "ingest"})), manifest.Ingest{})
	if fault.Code(err) != "ingest/no-subject" {
		t.Fatalf("got %v", err)
	}
}
