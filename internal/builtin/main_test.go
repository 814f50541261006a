package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/web"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) { testkit.Main(m, testkit.Child("service", service)) }

const rawStream = "events.raw"

func ingestGrant(t testing.TB, b *testkit.TestBroker) wire.Grant {
	t.Helper()
	return b.Grant(t, wire.Grant{Service: "ingest", Publish: []wire.Route{
		{Subject: rawStream, Stream: rawStream}, {Subject: rawStream + ".in.*", Stream: rawStream},
	}})
}

func connect(t testing.TB, b *testkit.TestBroker, g wire.Grant) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: g})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the broker may be gone
	})
	return conn
}

// served is an ingest service on a real socket.
type served struct {
	in   *ingest
	url  string
	stop func()
}

func serveIngest(t testing.TB, b *testkit.TestBroker, cfg manifest.Ingest) *served {
	t.Helper()
	return serveGrant(t, b, ingestGrant(t, b), cfg)
}

func serveGrant(t testing.TB, b *testkit.TestBroker, g wire.Grant, cfg manifest.Ingest) *served {
	t.Helper()
	in, err := newIngest(connect(t, b, g), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := web.New(in, web.Config{Listener: ln, MaxBody: in.bodies.limit + bodyRoom, Ready: in.ready, ReadStall: time.Second, DrainGrace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Run(ctx); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	stop := func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return &served{in, "http://" + server.Addr().String(), stop}
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	result
	Problem struct{ Code, What, Fix string } `json:"error"`
}

// client keeps no connections, so that servers can end and no goroutine is left.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: testkit.Patience}
}

func post(t testing.TB, url string, body io.Reader, headers ...string) answer {
	t.Helper()
	a, err := try(t, url, body, headers...)
	if err != nil {
		t.Fatalf("POST %s: %v", url, err)
	}
	return a
}

func try(t testing.TB, url string, body io.Reader, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client().Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{header: resp.Header}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("answer %d %q: %w", resp.StatusCode, data, err)
	}
	a.status = resp.StatusCode
	return a, nil
}

// events reads everything that the stream holds, in order.
func events(t testing.TB, b *testkit.TestBroker, stream string) []string {
	t.Helper()
	ctx := testkit.Context(t)
	s, err := b.JS.Stream(ctx, wire.StreamName(stream))
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	info := s.CachedInfo().State
	if info.Msgs == 0 {
		return all
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for left := info.Msgs; left > 0; left-- {
		msg, err := consumer.Next(jetstream.FetchMaxWait(testkit.Patience))
		if err != nil {
			t.Fatal(err)
		}
		f, err := bus.OpenFrame(stream, msg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Len() {
			e, err := f.Event(i)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(e))
		}
	}
	return all
}

func wantEvents(t testing.TB, b *testkit.TestBroker, want ...string) {
	t.Helper()
	if got := events(t, b, rawStream); !slices.Equal(got, want) {
		t.Fatalf("the stream holds %d events, want %d\n got %.300q\nwant %.300q", len(got), len(want), got, want)
	}
}

// numbered makes n lines from first on, each with some padding.
func numbered(first, n, pad int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"n":%d,"pad":"%0*d"}`+"\n", first+i, pad, 0)
	}
	return b.Bytes()
}
