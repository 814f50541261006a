package builtin

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

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
		a := post(t, s.url+"/v1/ingest", bytes.NewReader(numbered(0, 18000, 80)), headers...)
		if a.status != http.StatusOK || a.Accepted != 18000 || a.LastSeq-a.FirstSeq < 2 {
			t.Fatalf("answer is %+v", a)
		}
		got := events(t, b, rawStream)[before:]
		if want := strings.Split(strings.TrimSuffix(string(numbered(0, 18000, 80)), "\n"), "\n"); !slices.Equal(got, want) {
			t.Fatalf("%d events, not the 18000 in order", len(got))
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

// A stream with the policy fail does not ask its clients to wait.
func TestFullStreamThatFailsGives507(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: rawStream, MaxBytes: 100 << 10})
	g := ingestGrant(t, b)
	for i := range g.Publish {
		g.Publish[i].Full = wire.FullFail
	}
	s := serveGrant(t, b, g, manifest.Ingest{})
	for _, pair := range [][]string{nil, {wire.HTTPProducer, "p", wire.HTTPBatch, "1"}} {
		var a answer
		for n := range 100 {
			line := fmt.Appendf(nil, `{"n":%d,"pad":"%x"}`, n, noise(n))
			if a = post(t, s.url+"/v1/ingest", bytes.NewReader(line), pair...); a.status != http.StatusOK || len(pair) > 0 {
				break
			}
		}
		if a.status != http.StatusInsufficientStorage || a.Problem.Code != "ingest/stream-full" || a.header.Get("Retry-After") != "" {
			t.Errorf("%q: status %d, %+v, Retry-After %q", pair, a.status, a.Problem, a.header.Get("Retry-After"))
		}
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
