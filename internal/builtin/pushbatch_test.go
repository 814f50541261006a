package builtin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// linesEndpoint takes batches; answer says what becomes of one, by its request's number among those with its events.
type linesEndpoint struct {
	t      *testing.T
	answer func(w http.ResponseWriter, lines []pushLine, try int)

	mu    sync.Mutex
	tries map[string]int // by the batch's events
	done  map[string]int // by event
	sizes []int
}

func (e *linesEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if ct := r.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		e.t.Errorf("a batch is %s", ct)
	}
	var lines []pushLine
	scan := bufio.NewScanner(r.Body)
	scan.Buffer(nil, 1<<20)
	var names []string
	for scan.Scan() {
		var line pushLine
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil || line.SpecVersion != "1.0" || line.Subject != rawStream {
			e.t.Errorf("line %s: %v", scan.Text(), err)
		}
		if _, err := wire.ParseEventID(line.Event); err != nil {
			e.t.Errorf("event %q: %v", line.Event, err)
		}
		lines = append(lines, line)
		names = append(names, line.Event)
	}
	key := strings.Join(names, " ")
	e.mu.Lock()
	e.tries[key]++
	try := e.tries[key]
	e.sizes = append(e.sizes, len(lines))
	e.mu.Unlock()
	e.answer(w, lines, try)
}

// deliver counts a line as done.
func (e *linesEndpoint) deliver(line pushLine) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done[string(line.Data)+string(line.Base64)]++
}

func pushLines(t *testing.T, b *testkit.TestBroker, e *linesEndpoint, size int) *bus.Conn {
	t.Helper()
	e.t, e.tries, e.done = t, map[string]int{}, map[string]int{}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	conn := zmqGrant(t, b, wire.Grant{Consumes: []wire.Source{{Stream: rawStream}}})
	p := newPusher(server.URL, 5*time.Second, 4)
	t.Cleanup(p.client.CloseIdleConnections)
	batches := newBatcher(p, conn, size, time.Millisecond, 3, 4)
	batches.backoff = time.Millisecond
	cfg := p.stageConfig(manifest.Target{}, 4)
	cfg.Workers, cfg.Settle = 8, batches.settle
	stage, err := bus.NewStage(conn, bus.NewTopic[[]byte](rawStream), batches.handle, cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, stage)
	return conn
}

func TestABatchIsDoneAsAWhole(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	e := &linesEndpoint{}
	e.answer = func(w http.ResponseWriter, lines []pushLine, try int) {
		for _, line := range lines {
			if string(line.Data) == `{"n":7}` {
				w.WriteHeader(http.StatusUnprocessableEntity) // the whole batch, for one of its lines
				return
			}
		}
		if try == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for _, line := range lines {
			e.deliver(line)
		}
	}
	publishJSON(t, b, rawStream, rawStream, 100)
	conn := pushLines(t, b, e, 10)
	testkit.Eventually(t, func() bool { return unacknowledged(t, b, rawStream) == 0 }, "everything has its outcome")
	if n := conn.Counters().Parked.Load(); n != 1 {
		t.Errorf("%d events are parked, want the one that is refused", n)
	}
	e.check(t, 100, 10, 7)
}

func TestABatchHasAnOutcomeForEachLine(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	e := &linesEndpoint{}
	var once sync.Map
	e.answer = func(w http.ResponseWriter, lines []pushLine, _ int) {
		w.WriteHeader(http.StatusMultiStatus)
		for i, line := range lines {
			var event struct{ N int }
			_ = json.Unmarshal(line.Data, &event)
			_, again := once.LoadOrStore(line.Event, true)
			switch {
			case event.N%10 == 3:
				fmt.Fprintf(w, `{"index":%d,"status":400,"error":"no threes"}`+"\n", i)
			case event.N%10 == 5 && !again:
				fmt.Fprintf(w, `{"index":%d,"status":503}`+"\n", i)
			case event.N%10 == 6:
				fmt.Fprintf(w, `{"index":%d,"status":200}`+"\n", i)
				e.deliver(line)
			default:
				e.deliver(line) // not named
			}
		}
	}
	publishJSON(t, b, rawStream, rawStream, 100)
	conn := pushLines(t, b, e, 30)
	testkit.Eventually(t, func() bool { return unacknowledged(t, b, rawStream) == 0 }, "everything has its outcome")
	if n := conn.Counters().Parked.Load(); n != 10 {
		t.Errorf("%d events are parked, want the 10 that are refused", n)
	}
	e.check(t, 100, 30, 3, 13, 23, 33, 43, 53, 63, 73, 83, 93)
}

// check wants each event delivered once but the given ones never, in batches of at most size.
func (e *linesEndpoint) check(t *testing.T, n, size int, never ...int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	refused := map[int]bool{}
	for _, i := range never {
		refused[i] = true
	}
	for i := range n {
		want := 1
		if refused[i] {
			want = 0
		}
		if got := e.done[fmt.Sprintf(`{"n":%d}`, i)]; got != want {
			t.Errorf("event %d was taken %d times, want %d", i, got, want)
		}
	}
	most := 0
	for _, s := range e.sizes {
		most = max(most, s)
	}
	if most < 2 || most > size {
		t.Errorf("the largest batch had %d lines, want more than one and at most %d", most, size)
	}
}

// A list of outcomes that makes no sense is no outcome.
func TestOutcomesThatCannotBeReadHaveAllSentAgain(t *testing.T) {
	t.Parallel()
	b := &batcher{push: &pusher{url: "http://x"}}
	items := make([]pushItem, 3)
	for text, want := range map[string]struct{ again, refused int }{
		"":                                {0, 0},
		`{"index":1,"status":503}`:        {1, 0},
		`{"index":1,"status":404}`:        {0, 1},
		`{"index":3,"status":404}`:        {3, 0},
		`{"index":-1,"status":404}`:       {3, 0},
		`{"index":0,"status":404} hello`:  {3, 0},
		`{"index":0,"status":404}{"index`: {3, 0},
		`{"index":0,"status":404}` + "\n" + `{"index":0,"status":200}`: {3, 0},
	} {
		left, _, _ := b.outcomes(items, strings.NewReader(text))
		if len(left.items) != want.again || len(left.refused) != want.refused {
			t.Errorf("%s: %d again and %d refused, want %+v", text, len(left.items), len(left.refused), want)
		}
	}
}

func FuzzOutcomes(f *testing.F) {
	f.Add(`{"index":1,"status":404,"error":"no"}` + "\n" + `{"index":0,"status":503}`)
	f.Add(`{"index":1e9}`)
	f.Fuzz(func(t *testing.T, text string) {
		b := &batcher{push: &pusher{url: "http://x"}}
		left, _, _ := b.outcomes(make([]pushItem, 3), strings.NewReader(text))
		if len(left.items)+len(left.refused) > 3 || len(left.refused) != len(left.because) {
			t.Errorf("%q leaves %d and %d of 3", text, len(left.items), len(left.refused))
		}
	})
}
