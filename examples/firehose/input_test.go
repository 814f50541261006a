package firehose_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/hozo-dev/hozo/internal/testkit"
)

// Every kind of bad input goes through the running stack, each with good events around it: it is answered with a clear
// error, its neighbours land, and no process ends.
func TestBadInputIsRefusedAndItsNeighboursLand(t *testing.T) {
	stack := startStack(t, testkit.TempDir(t), "events.raw:        { max_bytes: 4GiB", "events.raw:        { max_bytes: 4MiB")
	url := "http://" + stack.address("ingest", "http") + "/v1/ingest"
	before := pids(stack.status())
	source := newSource(t)
	const ndjson = "application/x-ndjson"

	// good makes n events that are to be stored.
	good := func(n int) []byte {
		var lines []byte
		for range n {
			line := source.line()
			source.types[typeOf(line)]++
			source.stored++
			lines = append(lines, line...)
		}
		return lines
	}
	neighbour := func(after string) {
		t.Helper()
		if a := request(t, url, map[string]string{"Content-Type": ndjson}, bytes.NewReader(good(1))); a.status != http.StatusOK || a.accepted != 1 {
			t.Fatalf("a good event after %s: %+v", after, a)
		}
	}
	neighbour("nothing")

	whole := []struct { // what is refused as a whole
		name, kind, encoding string
		body                 io.Reader
		status               int
		code                 string
	}{
		{"an endless body", ndjson, "", endless("{}\n"), http.StatusRequestEntityTooLarge, "ingest/body-too-large"},
		{"an endless line", ndjson, "", endless("x"), http.StatusRequestEntityTooLarge, "ingest/body-too-large"},
		{"a line of 100 MB", ndjson, "", bytes.NewReader(bytes.Repeat([]byte("x"), 100<<20)), http.StatusRequestEntityTooLarge, "web/body-too-large"},
		{"gzip of 100 MB", ndjson, "gzip", bytes.NewReader(gzipped(t, bytes.Repeat([]byte("x"), 100<<20))), http.StatusRequestEntityTooLarge, "ingest/body-too-large"},
		{"truncated gzip", ndjson, "gzip", bytes.NewReader(half(gzipped(t, source.line()))), http.StatusBadRequest, "ingest/truncated"},
		{"truncated zstd", ndjson, "zstd", bytes.NewReader(half(zstandard(t, source.line()))), http.StatusBadRequest, "ingest/truncated"},
		{"no gzip at all", ndjson, "gzip", bytes.NewReader(source.line()), http.StatusBadRequest, "ingest/encoding"},
		{"an unknown encoding", ndjson, "br", bytes.NewReader(source.line()), http.StatusUnsupportedMediaType, "ingest/content-encoding"},
		{"a wrong content type", "text/plain", "", bytes.NewReader(source.line()), http.StatusUnsupportedMediaType, "ingest/content-type"},
		{"nothing but bad lines", ndjson, "", bytes.NewReader([]byte("{\n\xff\n")), http.StatusBadRequest, "ingest/all-bad"},
	}
	for _, c := range whole {
		a := request(t, url, map[string]string{"Content-Type": c.kind, "Content-Encoding": c.encoding}, c.body)
		if a.status != c.status || a.problem.Code != c.code || a.problem.What == "" || a.problem.Fix == "" || a.accepted != 0 {
			t.Errorf("%s: %+v, want %d with %s", c.name, a, c.status, c.code)
		}
		neighbour(c.name)
	}

	lines := []struct{ name, line string }{ // what is refused line by line
		{"invalid UTF-8", "{\"id\":\"\xff\xfe\"}\n"},
		{"half a document", "{\"id\":\n"},
		{"two documents", "{} {}\n"},
		{"a line of 2 MB", "\"" + string(bytes.Repeat([]byte("x"), 2<<20)) + "\"\n"},
		{"deep nesting", string(bytes.Repeat([]byte("["), 1<<19)) + "\n"},
	}
	for _, c := range lines {
		for _, encoding := range []string{"", "gzip", "zstd"} {
			body := slices.Concat(good(2), []byte(c.line), good(1))
			switch encoding {
			case "gzip":
				body = gzipped(t, body)
			case "zstd":
				body = zstandard(t, body)
			}
			a := request(t, url, map[string]string{"Content-Type": ndjson, "Content-Encoding": encoding}, bytes.NewReader(body))
			if a.status != http.StatusOK || a.accepted != 3 || a.rejected != 1 {
				t.Errorf("%s between good events, encoding %q: %+v", c.name, encoding, a)
			}
		}
	}

	// Faster than its readers are done and trimmed: the stream reaches its limit.
	noise := make([]byte, 300<<10)
	_, _ = rand.Read(noise) // it never fails
	sent := 0
	loud := func() answer {
		line := fmt.Appendf(nil, "{\"id\":\"noise-%d\",\"type\":\"Noise\",\"payload\":\"%x\"}\n", sent, noise)
		a := request(t, url, map[string]string{"Content-Type": ndjson}, bytes.NewReader(line))
		if a.status == http.StatusOK {
			sent++
			source.stored++
			source.types["Noise"]++
		}
		return a
	}
	a := loud()
	for a.status == http.StatusOK && sent < 200 {
		a = loud()
	}
	if a.status != http.StatusServiceUnavailable || a.problem.Code != "ingest/stream-full" || a.retryAfter < 1 || a.problem.Fix == "" {
		t.Fatalf("a stream at its limit: %+v", a)
	}
	t.Logf("the stream is full after %d events of 600 KB", sent)
	testkit.Eventually(t, func() bool { return loud().status == http.StatusOK }, "the stream takes events again")

	t.Log("the stream takes events again")
	stack.awaitStored(source.stored)
	t.Logf("all %d events are stored", source.stored)
	stack.sameProcesses(before, "after all bad input")

	// A stop while events are between two stages leaves them in their streams; the next start stores them.
	neighbour("everything else")
	stack.down()
	stack.run("up", "-d", "--no-build")
	stack.awaitStored(source.stored)
	stack.down()
	checkStores(t, stack.data, source.stored, source.types)
}

// endless repeats a text for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

func half(p []byte) []byte { return p[:len(p)/2] }

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(data, nil)
}
