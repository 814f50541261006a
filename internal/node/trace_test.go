package node_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// traced parks its events until the file that FIX names is there, and leaves a line with the trace of each try in the one
// that SEEN names.
func traced(ctx context.Context, e bus.Event[[]byte], out *bus.Out) error {
	seen, err := os.OpenFile(os.Getenv("SEEN"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer seen.Close()
	trace, _ := bus.TraceOf(ctx)
	if _, err := seen.WriteString(trace.String() + " " + trace.State + "\n"); err != nil {
		return err
	}
	if _, err := os.Stat(os.Getenv("FIX")); err != nil {
		return bus.Reject("traced/broken", errors.New("it is not mended"))
	}
	return out.Publish("events.raw.done", e.Data)
}

// A request's trace goes through ingest, a stage, the dead letters, hozo dlq retry, the stage again and to the program
// that events are pushed to, with a span of its own for each hop.
func TestATraceGoesFromARequestThroughTheDeadLettersToAProgram(t *testing.T) {
	t.Parallel()
	pushed := make(chan http.Header, 16) // more than are sent
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { pushed <- r.Header }))
	t.Cleanup(endpoint.Close)
	dir := testkit.TempDir(t)
	fix, seen := filepath.Join(dir, "fix"), filepath.Join(dir, "seen")
	p := up(t, `  in: { builtin: ingest, listen: { http: 0 }, publishes: [events.raw.in] }
  stage:
    run: "%[1]s traced"
    consumes: [events.raw.in]
    publishes: [events.raw.done]
    env: { FIX: %[2]q, SEEN: %[3]q }
  out: { builtin: push, consumes: [events.raw.done], to: { http: %[4]q } }
`, fix, seen, endpoint.URL)
	ctx := testkit.Context(t)
	const traceID, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+service(p.status(t), "in").Listen["http"]+"/v1/publish/events.raw.in", strings.NewReader(`{"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-"+traceID+"-"+span+"-01")
	req.Header.Set("Tracestate", "vendor=1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("ingest answers %s", resp.Status)
	}
	var letters []node.DeadLetter
	testkit.Eventually(t, func() bool {
		var err error
		letters, err = p.client.DeadLetters(ctx, node.Filter{}, 0, 0)
		return err == nil && len(letters) == 1
	}, "the event is parked")
	if letter, ok := wire.TraceOf(letters[0].Header); !ok || !strings.Contains(letter.TraceID(), traceID) {
		t.Errorf("the dead letter has headers %v", letters[0].Header)
	}
	if err := os.WriteFile(fix, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.RetryDead(ctx, node.Selection{Seqs: []uint64{letters[0].Seq}}, nil); err != nil {
		t.Fatal(err)
	}
	last := testkit.Wait(t, pushed)
	got, ok := wire.ParseTrace(last.Get("Traceparent"), last.Get("Tracestate"))
	if !ok || !got.Sampled || got.State != "vendor=1" || !strings.Contains(got.TraceID(), traceID) {
		t.Errorf("the endpoint is sent traceparent %q, tracestate %q", last.Get("Traceparent"), last.Get("Tracestate"))
	}
	data, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	tries := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(tries) != 2 {
		t.Fatalf("the stage has tried %q, want it before and after", tries)
	}
	spans := map[string]bool{span: true}
	for _, parent := range []string{strings.Fields(tries[0])[0], strings.Fields(tries[1])[0], got.String()} {
		fields := strings.Split(parent, "-")
		if len(fields) != 4 || fields[1] != traceID || fields[3] != "01" || spans[fields[2]] {
			t.Errorf("a hop has traceparent %q behind spans %v", parent, spans)
			continue
		}
		spans[fields[2]] = true
	}
}
