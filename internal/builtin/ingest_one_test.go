package builtin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestOneEventIsPublishedOnceForEachKey(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{MaxLine: 100})
	url := s.url + "/v1/publish/" + rawStream
	for i, want := range []bool{false, true, true} {
		a := post(t, url, strings.NewReader("{\n  \"n\": 1\n}\n"), "Content-Type", "application/json", "Idempotency-Key", "order-1")
		if a.status != http.StatusOK || a.Accepted != 1 || a.FirstSeq != 1 || a.Duplicate != want {
			t.Fatalf("try %d: %d %+v", i+1, a.status, a)
		}
	}
	if a := post(t, url, strings.NewReader(`{"n":2}`)); a.status != http.StatusOK || a.FirstSeq != 2 || a.Duplicate {
		t.Fatalf("without a key: %d %+v", a.status, a)
	}
	wantEvents(t, b, `{"n":1}`, `{"n":2}`)
	if n := s.in.conn.Counters().EventsIn.Load(); n != 2 {
		t.Errorf("%d events are counted, want 2", n)
	}
	for name, bad := range map[string]struct {
		status     int
		code, url  string
		body, head string
	}{
		"two documents":     {http.StatusBadRequest, "ingest/invalid-json", url, "{}\n{}", "k"},
		"no JSON":           {http.StatusBadRequest, "ingest/invalid-json", url, "hello", "k"},
		"empty":             {http.StatusBadRequest, "ingest/invalid-json", url, "", "k"},
		"too long":          {http.StatusRequestEntityTooLarge, "ingest/line-too-long", url, `"` + strings.Repeat("x", 100) + `"`, "k"},
		"undeclared":        {http.StatusNotFound, "ingest/no-stream", s.url + "/v1/publish/events.other", "{}", "k"},
		"a key that is not": {http.StatusBadRequest, "ingest/bad-key", url, "{}", strings.Repeat("k", 256)},
	} {
		if a := post(t, bad.url, strings.NewReader(bad.body), "Idempotency-Key", bad.head); a.status != bad.status || a.Problem.Code != bad.code {
			t.Errorf("%s: %d %+v", name, a.status, a.Problem)
		}
	}
}

func TestAnEventThatIsNotJSONKeepsItsType(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{MaxLine: 100})
	url := s.url + "/v1/publish/" + rawStream
	const image = "\x89PNG\r\n\x00 "
	for _, key := range []string{"", "picture-1"} {
		a := post(t, url, strings.NewReader(image), "Content-Type", "image/png", "Idempotency-Key", key)
		if a.status != http.StatusOK || a.Accepted != 1 {
			t.Fatalf("with key %q: %d %+v", key, a.status, a)
		}
	}
	wantEvents(t, b, image, image)
	stream, err := b.JS.Stream(testkit.Context(t), wire.StreamName(rawStream))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(testkit.Context(t), 1)
	if err != nil || wire.ContentType(msg.Header) != "image/png" {
		t.Errorf("the event is stored with %v (%v)", msg, err)
	}
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense"} {
		if a := post(t, url, strings.NewReader("{}"), "Content-Type", kind); a.status != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d", kind, a.status)
		}
	}
}
