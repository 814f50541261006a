package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

const (
	keyedStream = "orders"
	keyedParts  = 16
	keyedKeys   = 40 // of one producer
)

func keyedGrant(t testing.TB, b *testkit.TestBroker) wire.Grant {
	t.Helper()
	route := wire.Route{Subject: keyedStream, Stream: keyedStream, Partitions: keyedParts, Key: "key"}
	producers := route
	producers.Subject += ".in.*"
	return b.Grant(t, wire.Grant{Service: "ingest", Publish: []wire.Route{route, producers}})
}

type keyedEvent struct {
	Key string `json:"key"`
	N   int    `json:"n"`
	Pad string `json:"pad,omitempty"`
}

// keyedBody is batch n, from 1, of a producer whose batches all have `each` events of each key, key by key in turn.
func keyedBody(t testing.TB, producer string, n, each, pad int) []byte {
	t.Helper()
	var all []byte
	for i := range each {
		for k := range keyedKeys {
			line, err := json.Marshal(keyedEvent{fmt.Sprintf("%s-%d", producer, k), (n-1)*each + i, strings.Repeat("x", pad)})
			if err != nil {
				t.Fatal(err)
			}
			all = append(append(all, line...), '\n')
		}
	}
	return all
}

// checkKeys checks that the stream holds each key's events from 0 to each-1, once and in order.
func checkKeys(t testing.TB, b *testkit.TestBroker, keys, each int) {
	t.Helper()
	next := make(map[string]int)
	for _, line := range events(t, b, keyedStream) {
		var e keyedEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.N != next[e.Key] {
			t.Fatalf("%s: event %d came when %d was next", e.Key, e.N, next[e.Key])
		}
		next[e.Key]++
	}
	if len(next) != keys {
		t.Errorf("%d keys, want %d", len(next), keys)
	}
	for key, n := range next {
		if n != each {
			t.Errorf("%s has %d events, want %d", key, n, each)
		}
	}
}

func TestKeyedBatchIsRecognisedEverywhere(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := keyedGrant(t, b)
	s := serveGrant(t, b, g, manifest.Ingest{})
	body := func(n int) *bytes.Reader { return bytes.NewReader(keyedBody(t, "p", n, 200, 1500)) } // several frames in some partitions
	first := post(t, s.url+"/v1/ingest", body(1), batchHeaders("p", 1)...)
	if first.status != http.StatusOK || first.Duplicate || first.Accepted != 200*keyedKeys || first.FirstSeq != 1 || first.LastSeq <= keyedParts+2 {
		t.Fatalf("first answer is %+v", first)
	}
	check := func(url, when string) {
		t.Helper()
		a := post(t, url+"/v1/ingest", body(1), batchHeaders("p", 1)...)
		if a.status != http.StatusOK || !a.Duplicate || a.FirstSeq != first.FirstSeq || a.LastSeq != first.LastSeq {
			t.Fatalf("%s: answer is %+v, want a duplicate of %+v", when, a, first)
		}
	}
	check(s.url, "same process")
	s.stop()
	s = serveGrant(t, b, g, manifest.Ingest{})
	check(s.url, "after a restart")
	b.Restart(t)
	check(s.url, "after a restart of the broker")
	if a := post(t, s.url+"/v1/ingest", body(2), batchHeaders("p", 2)...); a.status != http.StatusOK || a.Duplicate || a.FirstSeq != first.LastSeq+1 {
		t.Fatalf("the next batch: %+v", a)
	}
	if old := post(t, s.url+"/v1/ingest", body(1), batchHeaders("p", 1)...); old.status != http.StatusOK || !old.Duplicate {
		t.Fatalf("an older batch: %+v", old)
	}
	if a := post(t, s.url+"/v1/ingest", strings.NewReader(`{"key":"p-1"}`), batchHeaders("p", 2)...); a.status != http.StatusConflict || a.Problem.Code != "ingest/batch-changed" {
		t.Fatalf("a batch with other content: %d %+v", a.status, a.Problem)
	}
	checkKeys(t, b, keyedKeys, 400)
}

func TestKeyedBatchStoredInPartIsCompleted(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngestKeyed(t, b)
	whole := cut(keyedBody(t, "p", 1, 200, 1500), 1<<20)
	k := &keyedBatch{in: s.in, st: s.in.only, who: producer{"p", 1}, parts: s.in.only.partition(&whole), ctx: t.Context(), have: make([]latest, keyedParts)}
	// Another process stored the first part and those of half of the partitions, some not to their end, and died.
	for i, part := range k.parts[:len(k.parts)/2] {
		if i%5 == 4 && k.parts[i+1].partition != part.partition {
			continue
		}
		if err := k.storePart(part, k.have[k.parts[0].partition].first); err != nil {
			t.Fatal(err)
		}
	}
	next := func() answer {
		return post(t, s.url+"/v1/ingest", bytes.NewReader(keyedBody(t, "p", 2, 1, 0)), batchHeaders("p", 2)...)
	}
	if a := next(); a.status != http.StatusConflict || a.Problem.Code != "ingest/batch-unfinished" {
		t.Fatalf("the next batch before this one is whole: %d %+v", a.status, a.Problem)
	}
	a := post(t, s.url+"/v1/ingest", bytes.NewReader(keyedBody(t, "p", 1, 200, 1500)), batchHeaders("p", 1)...)
	if a.status != http.StatusOK || a.Duplicate || a.FirstSeq != 1 || a.LastSeq != uint64(len(k.parts)) {
		t.Fatalf("answer is %+v, and the batch has %d parts", a, len(k.parts))
	}
	checkKeys(t, b, keyedKeys, 200)
}

func serveIngestKeyed(t testing.TB, b *testkit.TestBroker) *served {
	t.Helper()
	return serveGrant(t, b, keyedGrant(t, b), manifest.Ingest{})
}

// Producers that repeat each batch at two servers at once until both have answered, while servers and the broker come
// and go.
func TestKeyedBatchesSurviveRacesAndRestarts(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	g := keyedGrant(t, b)
	var mu sync.Mutex
	servers := []*served{serveGrant(t, b, g, manifest.Ingest{}), serveGrant(t, b, g, manifest.Ingest{})}
	url := func(i int) string { mu.Lock(); defer mu.Unlock(); return servers[i].url }
	const producers, batches, each = 2, 10, 20
	ctx, cancel := context.WithCancel(t.Context())
	var wg, trouble sync.WaitGroup
	for p := range producers {
		name := fmt.Sprint("p", p)
		wg.Go(func() {
			for n := 1; n <= batches; n++ {
				body := keyedBody(t, name, n, each, 0)
				var both sync.WaitGroup
				for i := range servers {
					both.Go(func() {
						testkit.Eventually(t, func() bool {
							a, err := try(t, url(i)+"/v1/ingest", bytes.NewReader(body), batchHeaders(name, n)...)
							return err == nil && a.status == http.StatusOK
						}, fmt.Sprintf("batch %d is answered", n))
					})
				}
				both.Wait()
			}
		})
	}
	trouble.Go(func() {
		for round := 0; ; round++ {
			timer := time.NewTimer(50*time.Millisecond + rand.N(100*time.Millisecond))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			if round%3 == 2 {
				b.Kill(t)
				b.Start(t)
				continue
			}
			fresh := serveGrant(t, b, g, manifest.Ingest{})
			mu.Lock()
			old := servers[round%2]
			servers[round%2] = fresh
			mu.Unlock()
			old.stop()
		}
	})
	wg.Wait()
	cancel()
	trouble.Wait()
	testkit.Eventually(t, func() bool { _, err := b.JS.AccountInfo(t.Context()); return err == nil }, "the broker is back")
	checkKeys(t, b, producers*keyedKeys, batches*each)
}

func TestPlainIngestKeepsTheOrderOfKeys(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngestKeyed(t, b)
	const clients, requests, each = 4, 8, 10
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := 1; n <= requests; n++ {
				a, err := try(t, s.url+"/v1/ingest", bytes.NewReader(keyedBody(t, fmt.Sprint("c", c), n, each, 0)))
				if err != nil || a.status != http.StatusOK || a.Accepted != each*keyedKeys {
					t.Errorf("request %d: %v %+v", n, err, a)
				}
			}
		})
	}
	wg.Wait()
	checkKeys(t, b, clients*keyedKeys, requests*each)
}

// An event with an Idempotency-Key comes behind those of its key that came before, and a repeat of it is recognised.
func TestOneKeyedEventIsStoredInItsPartition(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngestKeyed(t, b)
	const keys, each = 5, 4
	for n := range each {
		for k := range keys {
			for _, again := range []bool{false, true} {
				a := post(t, s.url+publishPath+keyedStream, strings.NewReader(fmt.Sprintf(`{"key":"k%d","n":%d}`, k, n)),
					"Content-Type", "application/json", pushKey, fmt.Sprintf("%d-%d", k, n))
				if a.status != http.StatusOK || a.Duplicate != again {
					t.Fatalf("event %d of key %d, again %v: %d %+v", n, k, again, a.status, a)
				}
			}
		}
	}
	checkKeys(t, b, keys, each)
}
