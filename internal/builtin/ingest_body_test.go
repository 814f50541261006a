package builtin

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

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
