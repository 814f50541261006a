package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// outageManifest has one of everything that talks to the broker: a program that publishes and asks (the test itself), one
// that answers, ingest, readers in order, sinks, push and ZeroMQ's door. %[1]s is the test binary, %[2]s who is pushed to.
const outageManifest = `project: test
streams:
  events.raw: { max_bytes: 64MiB }
  orders: { max_bytes: 64MiB, key: key, partitions: 4 }
  sorted: { max_bytes: 64MiB, key: key, partitions: 4 }
  outside: { max_bytes: 64MiB }
services:
  feeder: { run: "%[1]s idle", publishes: [events.raw], calls: [echo] }
  echo: { run: "%[1]s echo", health: notify, serves: [echo] }
  raw: { builtin: sink, consumes: [events.raw], to: { file: raw, rotate: { age: 200ms } } }
  in: { builtin: ingest, listen: { http: 0 }, publishes: [orders] }
  sort: { builtin: route, scale: 2, consumes: [{ subject: orders, ordered: true }], publishes: [sorted], route: { rules: [{ when: "n >= 0", to: sorted }] } }
  sorted: { builtin: sink, consumes: [sorted], to: { file: sorted, rotate: { age: 200ms } } }
  gate: { builtin: zmq, listen: { in: 0 }, publishes: [outside], zmq: { in: { pull: outside } } }
  push: { builtin: push, consumes: [outside], to: { http: "%[2]s" } }
`

// echoCall is what service echo answers.
var echoCall = bus.NewCall[[]byte, []byte]("echo")

// The broker is away for a while: killed, and each next one ends at once. Everybody who talks to it waits and goes on
// by itself, with nothing lost and nothing doubled. HOZO_OUTAGE says how long, 30s for example.
func TestEverybodyOutlivesABrokerThatIsAway(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits while nothing can happen")
	}
	t.Parallel()
	away := 6 * time.Second
	if text := os.Getenv("HOZO_OUTAGE"); text != "" {
		var err error
		if away, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	pushed := &receiver{ids: map[string]string{}}
	endpoint := httptest.NewServer(pushed)
	t.Cleanup(endpoint.Close)
	dir := testkit.TempDir(t)
	bin := filepath.Join(dir, "hozo")
	install(t, bin)
	p := upWith(t, dir, bin, fmt.Sprintf(outageManifest, bin, endpoint.URL))
	before := p.status(t)

	traffic := newTraffic(t, away, p, before)
	testkit.Eventually(t, func() bool { return traffic.flowed(50) && pushed.count() > 50 }, "everything flows")

	spoiler := bin + ".spoilt.broker"
	if err := os.WriteFile(spoiler, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kill(t, platform(t, before, "broker").PID)
	until := time.After(away)
	p.await(t, "the broker is away", func(s status.Snapshot) bool { return platform(t, s, "broker").State != status.Ready })
	<-until
	if s := p.status(t); platform(t, s, "broker").State == status.Ready {
		t.Error("the broker was not away for all of that time")
	}
	if err := os.Remove(spoiler); err != nil {
		t.Fatal(err)
	}
	p.await(t, "the broker is back", func(s status.Snapshot) bool { return platform(t, s, "broker").State == status.Ready })
	traffic.resetFlow()
	testkit.Eventually(t, func() bool { return traffic.flowed(50) }, "everything flows again")
	sent := traffic.end()

	var drain status.Drain
	p.await(t, "everything is read", func(s status.Snapshot) bool { return drain.Behind(s) == "" && ready(s) })
	if diff := cmp.Diff(pids(before), pids(p.status(t))); diff != "" {
		t.Errorf("services were replaced (-before +after):\n%s", diff)
	}
	exactly(t, "published", filepath.Join(dir, "raw", "events.raw"), sent.published, 1, traffic.unsure)
	exactly(t, "posted", filepath.Join(dir, "sorted", "sorted"), sent.batches, outageKeys, nil)
	testkit.Eventually(t, func() bool { return pushed.count() == sent.pushes }, "every message of the ZeroMQ program was pushed")
	pushed.mu.Lock()
	defer pushed.mu.Unlock()
	for _, twice := range pushed.twice {
		t.Errorf("pushed as two events: %s", twice)
	}
	t.Logf("%+v", sent)
}

// exactly waits until what a sink has stored are the events of n numbers, one of each key, and checks that each is there
// once and in the order of its key. Of those that are unsure it may be there twice.
func exactly(t *testing.T, what, dir string, n, keys int, unsure map[int]bool) {
	t.Helper()
	var all []order
	testkit.Eventually(t, func() bool {
		all = sunk(t, dir)
		return len(all) >= n*keys && all[len(all)-1].N == n-1
	}, what+": everything is stored")
	next := map[string]int{}
	for _, o := range all {
		if unsure[o.N] && o.N == next[o.Key]-1 {
			continue
		}
		if o.N != next[o.Key] {
			t.Fatalf("%s: %d of key %q comes where %d should", what, o.N, o.Key, next[o.Key])
		}
		next[o.Key]++
	}
	if len(next) != keys {
		t.Errorf("%s: events of %d keys are stored, want %d", what, len(next), keys)
	}
	for key, have := range next {
		if have != n {
			t.Errorf("%s: %d events of key %q are stored, %d were sent", what, have, key, n)
		}
	}
}

// outageKeys are the keys of what is posted.
const outageKeys = 10

// sent is what was sent, and answered.
type sent struct{ published, batches, pushes, answers int }

// traffic is programs that send without a pause, each waiting until what it has sent is taken.
type traffic struct {
	t      *testing.T
	ctx    context.Context //nolint:containedctx // of all of them; ends by its time if nothing else ends them
	stop   atomic.Bool
	wg     sync.WaitGroup
	push   *exec.Cmd
	stdin  io.Closer
	stdout bytes.Buffer

	unsure map[int]bool // published twice perhaps; to be read after the end

	published, batches, answers             atomic.Int64
	fromPublished, fromBatches, fromAnswers int64
}

func newTraffic(t *testing.T, away time.Duration, p *project, s status.Snapshot) *traffic {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), away+3*testkit.Patience)
	tr := &traffic{t: t, ctx: ctx, unsure: map[int]bool{}}
	t.Cleanup(cancel)
	grant, err := wire.ReadGrant(filepath.Join(p.state, "grants", "feeder.1.json"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := bus.Connect(ctx, bus.Config{Grant: grant, URL: p.bus(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tr.stop.Store(true)
		tr.wg.Wait()
		if err := conn.Close(ctx); err != nil {
			t.Errorf("close the feeder: %v", err)
		}
	})
	tr.wg.Go(func() { tr.publish(conn) })
	tr.wg.Go(func() { tr.ask(conn) })
	tr.wg.Go(func() { tr.post("http://" + service(s, "in").Listen["http"] + "/v1/ingest") })
	tr.startPush(service(s, "gate").Listen["in"])
	return tr
}

// publish publishes again what the bus did not take for 10 s; nobody knows of such an event whether it was stored.
func (tr *traffic) publish(conn *bus.Conn) {
	topic := bus.NewTopic[order]("events.raw")
	for !tr.stop.Load() {
		n := int(tr.published.Load())
		_, err := topic.Publish(tr.ctx, conn, order{N: n})
		switch {
		case err == nil:
			tr.published.Add(1)
		case fault.Code(err) != bus.CodeUnavailable || tr.ctx.Err() != nil:
			tr.t.Errorf("publish: %v", err)
			return
		default:
			tr.unsure[n] = true
		}
	}
}

// ask counts answers. A question that the broker's end has swallowed is not asked again by anybody but its caller.
func (tr *traffic) ask(conn *bus.Conn) {
	for n := 0; !tr.stop.Load(); n++ {
		question := strconv.Itoa(n)
		ctx, cancel := context.WithTimeout(tr.ctx, time.Second)
		answer, err := echoCall.Ask(ctx, conn, []byte(question))
		cancel()
		if err == nil && string(answer) != question {
			tr.t.Errorf("the answer to %s is %s", question, answer)
			return
		}
		if err == nil {
			tr.answers.Add(1)
		}
	}
}

func (tr *traffic) post(url string) {
	for !tr.stop.Load() {
		n := int(tr.batches.Load())
		var body bytes.Buffer
		for k := range outageKeys {
			fmt.Fprintf(&body, "{\"key\":\"k%d\",\"n\":%d}\n", k, n)
		}
		for !postBatch(tr.t, url, n+1, body.Bytes()) {
			if tr.ctx.Err() != nil {
				tr.t.Error("a batch was never taken")
				return
			}
		}
		tr.batches.Add(1)
	}
}

// startPush starts an unmodified ZeroMQ program that sends until its input ends and prints how many it has sent.
func (tr *traffic) startPush(address string) {
	tr.t.Helper()
	tr.push = exec.CommandContext(tr.ctx, "/usr/bin/python3", "-c", `
import sys, select, zmq
context = zmq.Context()
socket = context.socket(zmq.PUSH)
socket.connect("tcp://" + sys.argv[1])
n = 0
while not select.select([sys.stdin], [], [], 0.005)[0]:
    socket.send_string('{"n":%d}' % n)
    n += 1
socket.close()
context.term()
print(n)`, address)
	stdin, err := tr.push.StdinPipe()
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.stdin, tr.push.Stdout, tr.push.Stderr = stdin, &tr.stdout, &tr.stdout
	if err := tr.push.Start(); err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() {
		_ = tr.push.Process.Kill() // it may have ended
		_ = tr.push.Wait()
	})
}

// flowed says whether each of those that count has done n since resetFlow.
func (tr *traffic) flowed(n int64) bool {
	return tr.published.Load() >= tr.fromPublished+n && tr.batches.Load() >= tr.fromBatches+n && tr.answers.Load() >= tr.fromAnswers+n
}

func (tr *traffic) resetFlow() {
	tr.fromPublished, tr.fromBatches, tr.fromAnswers = tr.published.Load(), tr.batches.Load(), tr.answers.Load()
}

// end stops all senders and says what they have sent.
func (tr *traffic) end() sent {
	tr.t.Helper()
	tr.stop.Store(true)
	tr.wg.Wait()
	_ = tr.stdin.Close() // it ends by this
	if err := tr.push.Wait(); err != nil {
		tr.t.Fatalf("the ZeroMQ program: %v: %s", err, &tr.stdout)
	}
	pushes, err := strconv.Atoi(strings.TrimSpace(tr.stdout.String()))
	if err != nil {
		tr.t.Fatalf("the ZeroMQ program says %q", tr.stdout.String())
	}
	return sent{int(tr.published.Load()), int(tr.batches.Load()), pushes, int(tr.answers.Load())}
}

// receiver is a program's HTTP endpoint. An event may come twice when the broker did not hear of its answer, always under
// its own id.
type receiver struct {
	mu    sync.Mutex
	ids   map[string]string // of events, by what is in them
	twice []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	data, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	var event order
	if err != nil || json.Unmarshal(data, &event) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id, have := req.Header.Get("Hozo-Event"), r.ids[string(data)]
	if have != "" && have != id || id == "" {
		r.twice = append(r.twice, fmt.Sprintf("%s as %s and %s", data, have, id))
	}
	r.ids[string(data)] = id
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)
}
