package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

const keyedHead = `project: test
streams:
  orders: { max_bytes: 64MiB, key: key, partitions: 16 }
  big: { max_bytes: 64MiB, key: key, partitions: 16 }
  small: { max_bytes: 64MiB, key: key, partitions: 16 }
services:
`

// keyedServices is the whole way: HTTP → stream with a key → ordered route → streams with a key → sinks. %[1]s is the condition of the route.
const keyedServices = `  ingest:
    builtin: ingest
    listen: { http: 0 }
    publishes: [orders]
    restart: { delay: 20ms }
  sort:
    builtin: route
    scale: 3
    consumes: [{ subject: orders, ordered: true }]
    publishes: [big, small]
    route:
      rules:
        - { when: '%[1]s', to: big }
      default: small
    restart: { delay: 20ms }
  bigs:
    builtin: sink
    consumes: [big]
    to: { file: bigs, rotate: { age: 200ms } }
    restart: { delay: 20ms }
  smalls:
    builtin: sink
    consumes: [small]
    to: { file: smalls, rotate: { age: 200ms } }
    restart: { delay: 20ms }
`

type order struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

// The rules of a route are changed under load while its instances and the broker are killed: every event leaves by one
// rule, old or new, and the sinks get those of each key once and in order.
func TestOrderOfKeysOutlivesKillsAndChangesOfRoutes(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	t.Parallel()
	dir := testkit.TempDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := upWith(t, dir, self, keyedHead+fmt.Sprintf(keyedServices, "n % 2 == 0"))
	url := "http://" + service(p.status(t), "ingest").Listen["http"] + "/v1/ingest"
	const keys = 100
	var stop atomic.Bool
	var sending sync.WaitGroup
	sent := 0
	sending.Go(func() {
		for batch := 1; !stop.Load(); batch++ {
			var body bytes.Buffer
			for k := range keys {
				fmt.Fprintf(&body, "{\"key\":\"k%d\",\"n\":%d}\n", k, sent)
			}
			sent++
			testkit.Eventually(t, func() bool { return postBatch(t, url, batch, body.Bytes()) }, "the batch is stored")
		}
	})
	defer sending.Wait()
	defer stop.Store(true)
	for round, when := range []string{"n % 3 == 0", "n % 2 == 1", "n % 5 < 2"} {
		s := p.await(t, "ready", ready)
		kill(t, service(s, "sort").Instances[round%3].PID)
		if round == 1 {
			kill(t, platform(t, s, "broker").PID)
		}
		p.write(t, keyedHead+fmt.Sprintf(keyedServices, when))
		if _, err := p.client.Apply(testkit.Context(t), p.file, ""); err != nil {
			t.Fatal(err)
		}
		p.await(t, "shared out", func(s status.Snapshot) bool { return ready(s) && sharedOut(s) })
	}
	stop.Store(true)
	sending.Wait()
	var drain status.Drain
	p.await(t, "everything done", func(s status.Snapshot) bool { return drain.Behind(s) == "" && ready(s) })
	seen := map[order]int{}
	for _, name := range []string{"big", "small"} {
		last := map[string]int{}
		for _, o := range sunk(t, filepath.Join(dir, name+"s", name)) {
			if have, ok := last[o.Key]; ok && o.N <= have {
				t.Errorf("%s: %d of %s came behind %d", name, o.N, o.Key, have)
			}
			last[o.Key] = o.N
			seen[o]++
		}
	}
	for k := range keys {
		for n := range sent {
			if got := seen[order{fmt.Sprintf("k%d", k), n}]; got != 1 {
				t.Fatalf("event %d of k%d is in the sinks %d times", n, k, got)
			}
		}
	}
	t.Logf("%d events of %d keys", len(seen), keys)
}

func sharedOut(s status.Snapshot) bool {
	owners := map[int]bool{}
	for _, stream := range s.Streams {
		for _, c := range stream.Consumers {
			for _, part := range c.Partitions {
				owners[part.Instance] = true
			}
		}
	}
	return len(owners) == 3 && !owners[0]
}

func postBatch(t *testing.T, url string, batch int, body []byte) bool {
	req, err := http.NewRequestWithContext(testkit.Context(t), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return true
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set(wire.HTTPProducer, "p")
	req.Header.Set(wire.HTTPBatch, fmt.Sprint(batch))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// sunk reads what the file sink has written, in order.
func sunk(t *testing.T, dir string) []order {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.ndjson.zst"))
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	var all []order
	for _, name := range names { // sorted: names are sequences
		data, err := os.ReadFile(name)
		if err == nil {
			data, err = decoder.DecodeAll(data, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var o order
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatal(err)
			}
			all = append(all, o)
		}
	}
	return all
}
