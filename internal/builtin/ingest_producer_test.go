package builtin

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func batchHeaders(producer string, batch int) []string {
	return []string{wire.HTTPProducer, producer, wire.HTTPBatch, strconv.Itoa(batch)}
}

func TestRepeatedBatchIsAnsweredWithItsOriginalSequences(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := ingestGrant(t, b)
	s := serveGrant(t, b, g, manifest.Ingest{})
	body := numbered(0, 18000, 80) // three frames
	first := post(t, s.url+"/v1/ingest", bytes.NewReader(body), batchHeaders("p", 7)...)
	if first.status != http.StatusOK || first.Duplicate || first.FirstSeq != 1 || first.LastSeq < 3 {
		t.Fatalf("first answer is %+v", first)
	}
	check := func(url, when string) {
		t.Helper()
		a := post(t, url+"/v1/ingest", bytes.NewReader(body), batchHeaders("p", 7)...)
		if a.status != http.StatusOK || !a.Duplicate || a.FirstSeq != first.FirstSeq || a.LastSeq != first.LastSeq || a.Accepted != 18000 {
			t.Fatalf("%s: answer is %+v, want a duplicate of %+v", when, a, first)
		}
	}
	check(s.url, "same process")
	s.stop()
	s = serveGrant(t, b, g, manifest.Ingest{})
	check(s.url, "after a restart")
	b.Restart(t)
	check(s.url, "after a restart of the broker")

	if a := post(t, s.url+"/v1/ingest", strings.NewReader("1"), batchHeaders("p", 8)...); a.Duplicate || a.FirstSeq != first.LastSeq+1 {
		t.Fatalf("the next batch: %+v", a)
	}
	old := post(t, s.url+"/v1/ingest", bytes.NewReader(body), batchHeaders("p", 7)...)
	if old.status != http.StatusOK || !old.Duplicate || old.FirstSeq != 0 || old.LastSeq != 0 {
		t.Fatalf("an older batch: %+v", old)
	}
	if a := post(t, s.url+"/v1/ingest", bytes.NewReader(body), batchHeaders("p", 8)...); a.status != http.StatusConflict || a.Problem.Code != "ingest/batch-changed" {
		t.Fatalf("a batch with other content: %d %+v", a.status, a.Problem)
	}
	if got := len(events(t, b, rawStream)); got != 18001 {
		t.Fatalf("%d events, want 18001", got)
	}
}

func TestBatchStoredInPartIsResumed(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	s := serveIngest(t, b, manifest.Ingest{})
	body := numbered(0, 18000, 80)
	whole := cut(bytes.Clone(body), 1<<20)
	if len(whole.parts) < 3 {
		t.Fatalf("%d parts", len(whole.parts))
	}
	st := s.in.only
	// Another process stored two parts and died.
	have := latest{}
	for i := range 2 {
		next, err := s.in.storePart(t.Context(), st, rawStream+".in.p", have, producer{"p", 3}, whole, i)
		if err != nil {
			t.Fatal(err)
		}
		have = next
	}
	if a := post(t, s.url+"/v1/ingest", strings.NewReader("1"), batchHeaders("p", 4)...); a.status != http.StatusConflict || a.Problem.Code != "ingest/batch-unfinished" {
		t.Fatalf("the next batch before this one is whole: %d %+v", a.status, a.Problem)
	}
	a := post(t, s.url+"/v1/ingest", bytes.NewReader(body), batchHeaders("p", 3)...)
	if a.status != http.StatusOK || a.Duplicate || a.FirstSeq != 1 || a.LastSeq != uint64(len(whole.parts)) {
		t.Fatalf("answer is %+v", a)
	}
	if got, want := events(t, b, rawStream), strings.Split(strings.TrimSuffix(string(body), "\n"), "\n"); !slices.Equal(got, want) {
		t.Fatalf("%d events, not the %d in order", len(got), len(want))
	}
}

func TestRacingServersStoreEveryBatchOnce(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	g := ingestGrant(t, b)
	servers := []*served{serveGrant(t, b, g, manifest.Ingest{}), serveGrant(t, b, g, manifest.Ingest{})}
	const producers, batches = 3, 6
	size := func(p, n int) int { return []int{3, 7000, 1}[(p+n)%3] }
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for n := 1; n <= batches; n++ {
				body := numbered(p*1_000_000+n*10_000, size(p, n), 80)
				var both sync.WaitGroup
				fresh := make(chan bool, 2*len(servers)) // two tries at each
				for _, s := range slices.Concat(servers, servers) {
					both.Go(func() {
						a, err := try(t, s.url+"/v1/ingest", bytes.NewReader(body), batchHeaders(fmt.Sprint("p", p), n)...)
						if err != nil || a.status != http.StatusOK {
							t.Errorf("batch %d: %v %d %+v", n, err, a.status, a.Problem)
						}
						fresh <- !a.Duplicate
					})
				}
				both.Wait()
			}
		})
	}
	wg.Wait()
	checkLedger(t, b, producers, batches, size)
}

// checkLedger checks that every producer's events are in the stream once and in order.
func checkLedger(t *testing.T, b *testkit.TestBroker, producers, batches int, size func(p, n int) int) {
	t.Helper()
	got := make(map[int][]int)
	for _, e := range events(t, b, rawStream) {
		var n int
		if _, err := fmt.Sscanf(e, `{"n":%d,`, &n); err != nil {
			t.Fatalf("%q: %v", e, err)
		}
		got[n/1_000_000] = append(got[n/1_000_000], n)
	}
	for p := range producers {
		var want []int
		for n := 1; n <= batches; n++ {
			for i := range size(p, n) {
				want = append(want, p*1_000_000+n*10_000+i)
			}
		}
		if !slices.Equal(got[p], want) {
			t.Errorf("producer %d: %d events, want %d in order", p, len(got[p]), len(want))
		}
	}
}

// A client that repeats until it is answered, while ingest and the broker come and go.
func TestRestartsOfIngestAndBrokerDoubleNothing(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	g := ingestGrant(t, b)
	var mu sync.Mutex
	s := serveGrant(t, b, g, manifest.Ingest{})
	url := func() string { mu.Lock(); defer mu.Unlock(); return s.url }
	const producers, batches = 2, 12
	size := func(p, n int) int { return []int{5, 6000}[(p+n)%2] }
	ctx, cancel := context.WithCancel(t.Context())
	var wg, trouble sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for n := 1; n <= batches; n++ {
				body := numbered(p*1_000_000+n*10_000, size(p, n), 80)
				testkit.Eventually(t, func() bool {
					a, err := try(t, url()+"/v1/ingest", bytes.NewReader(body), batchHeaders(fmt.Sprint("p", p), n)...)
					return err == nil && a.status == http.StatusOK
				}, fmt.Sprintf("batch %d is answered", n))
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
			mu.Lock()
			old := s
			s = serveGrant(t, b, g, manifest.Ingest{})
			mu.Unlock()
			old.stop()
		}
	})
	wg.Wait()
	cancel()
	trouble.Wait()
	testkit.Eventually(t, func() bool { _, err := b.JS.AccountInfo(t.Context()); return err == nil }, "the broker is back")
	checkLedger(t, b, producers, batches, size)
}

func TestLatestCacheForgetsTheOldest(t *testing.T) {
	t.Parallel()
	c := newLatestCache[latest]()
	for i := range maxProducers {
		c.put(strconv.Itoa(i), latest{seq: uint64(i)})
	}
	if _, ok := c.get("0"); !ok {
		t.Fatal("0 is forgotten too early")
	}
	c.put("new", latest{seq: 7})
	if _, ok := c.get("1"); ok {
		t.Fatal("the one used longest ago is still there")
	}
	if l, ok := c.get("0"); !ok || l.seq != 0 {
		t.Fatal("the one just used is gone")
	}
	c.drop("0")
	if _, ok := c.get("0"); ok || len(c.byName) != c.order.Len() {
		t.Fatal("a dropped one is still there")
	}
}

func FuzzParseLatest(f *testing.F) {
	for _, h := range []string{"7/0/3", "7/1/3/1234", "0/0/1", "1/1/1/1", "1/0/1/5", "", "a/b/c", "1/-1/2", "18446744073709551616/0/1"} {
		f.Add("12", h)
	}
	f.Fuzz(func(t *testing.T, seq, header string) {
		l, err := parseLatest(seq, header)
		if err != nil {
			if l != (latest{}) {
				t.Fatalf("%v beside %v", l, err)
			}
			return
		}
		if l.batch == 0 || l.part < 0 || l.part >= l.parts {
			t.Fatalf("%q %q gives %+v", seq, header, l)
		}
	})
}
