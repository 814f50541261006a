package firehose_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hozo-dev/hozo/internal/ghevents"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// steady sends events at a rate from several producers and keeps how long each batch took, by phase.
type steady struct {
	url   string
	pause time.Duration // between two batches of a producer
	lines [][]byte
	phase atomic.Int32
	stop  chan struct{}

	mu    sync.Mutex
	sent  int
	bytes int
	took  [3][]time.Duration
	again int // tries that were not answered with 200
}

const (
	steadyProducers = 4
	steadyBatch     = 60 // events: some 140 KB of GH Archive's
)

func (s *steady) run(t *testing.T) {
	var producers sync.WaitGroup
	for p := range steadyProducers {
		producers.Go(func() {
			tick := time.NewTicker(s.pause)
			defer tick.Stop()
			for batch := 1; ; batch++ {
				select {
				case <-tick.C:
				case <-s.stop:
					return
				}
				var body []byte
				for i := range steadyBatch {
					line := s.lines[(batch*steadyBatch+i)%len(s.lines)]
					body = append(bytes.TrimRight(ghevents.WithID(body, line, fmt.Sprintf("%d-%d-%d", p, batch, i)), "\n"), '\n')
				}
				if !s.send(t, p, batch, body) {
					return
				}
			}
		})
	}
	producers.Wait()
}

// send sends a batch until it is accepted, and notes how long the first try took.
func (s *steady) send(t *testing.T, producer, batch int, body []byte) bool {
	phase, begun := s.phase.Load(), time.Now()
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return false
		}
		req.Header.Set("Content-Type", "application/x-ndjson")
		req.Header.Set(wire.HTTPProducer, "steady-"+strconv.Itoa(producer))
		req.Header.Set(wire.HTTPBatch, strconv.Itoa(batch))
		resp, err := http.DefaultClient.Do(req)
		code := 0
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // the code says it all
			resp.Body.Close()
			code = resp.StatusCode
		}
		s.mu.Lock()
		if try == 0 {
			s.took[phase] = append(s.took[phase], time.Since(begun))
		}
		if code == http.StatusOK {
			s.sent += steadyBatch
			s.bytes += len(body)
			s.mu.Unlock()
			return true
		}
		s.again++
		s.mu.Unlock()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-t.Context().Done():
			return false
		}
	}
}

func percentile(took []time.Duration, p int) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(len(took)-1, len(took)*p/100)].Round(100 * time.Microsecond)
}

// PostgreSQL hangs, is killed and comes back while events come in steadily: the intake goes on, the backlog is in the status,
// and in the end each event is a row once. HOZO_DRILL_DB_SECONDS (of the outage; 600) and HOZO_DRILL_DB_MBS (MB a second;
// 20) make it the long one; how long ingest took before and meanwhile is in the log.
func TestIntakeGoesOnWhileTheDatabaseIsAway(t *testing.T) {
	outage := time.Duration(fromEnv(t, "HOZO_DRILL_DB_SECONDS", 6)) * time.Second
	rate := fromEnv(t, "HOZO_DRILL_DB_MBS", 1)
	pg := testkit.Postgres(t)
	server, err := url.Parse(pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := server.User.Password()
	server.User = url.User(server.User.Username())
	place := testkit.TempDir(t)
	secret := filepath.Join(place, "secret.env")
	if err := os.WriteFile(secret, []byte("PGPASSWORD="+password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stack := startStackOf(t, "postgres.yaml", place, "postgres://hozo@127.0.0.1:5432/firehose", server.String(), "-secret.env", secret)
	s := &steady{url: "http://" + stack.address("ingest", "http") + "/v1/ingest", lines: drillEvents(t), stop: make(chan struct{})}
	batchBytes := 0
	for _, line := range s.lines {
		batchBytes += len(line)
	}
	batchBytes = batchBytes / len(s.lines) * steadyBatch
	s.pause = time.Duration(float64(steadyProducers*batchBytes) / (float64(rate) * 1e6) * float64(time.Second))
	var sending sync.WaitGroup
	sending.Go(func() { s.run(t) })
	stopped := sync.OnceFunc(func() { close(s.stop); sending.Wait() })
	defer stopped()

	watch := newMemory()
	observe := func(d time.Duration) {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
			watch.look(stack)
		}
	}
	testkit.Eventually(t, func() bool { return countRows(t, pg) > 0 }, "rows are stored")
	observe(max(2*time.Second, min(outage/2, time.Minute)))
	before := watch.lag
	s.phase.Store(1)
	pg.Freeze(t)
	observe(outage / 2)
	pg.Kill(t)
	observe(outage - outage/2)
	testkit.Eventually(t, func() bool { watch.look(stack); return watch.lag > before }, "the status shows what waits for the database")
	backlog := watch.lag
	pg.Start(t)
	s.phase.Store(2)
	observe(2 * time.Second)
	stopped()
	begun := time.Now()
	deadline := begun.Add(5*time.Minute + 2*outage)
	for countRows(t, pg) < s.sent && time.Now().Before(deadline) {
		observe(200 * time.Millisecond)
	}
	rows, distinct := countDistinct(t, pg)
	t.Logf("%d events, %.0f MB, at %.1f MB/s; %d tries refused; %s with nobody to write to; backlog %d messages; caught up %s after the last event",
		s.sent, float64(s.bytes)/1e6, float64(rate), s.again, outage, backlog, time.Since(begun).Round(100*time.Millisecond))
	for i, name := range []string{"before", "while it was away", "after"} {
		t.Logf("ingest %s: %d batches of %d KB, p50 %s, p99 %s", name, len(s.took[i]), batchBytes/1000, percentile(s.took[i], 50), percentile(s.took[i], 99))
	}
	t.Logf("most memory: %v", watch.most)
	if rows != s.sent || distinct != s.sent {
		t.Errorf("the table has %d rows of %d events, want %d: %d lost, %d doubled", rows, distinct, s.sent, s.sent-distinct, rows-distinct)
	}
	// The sink holds one batch of 4 MiB and what it reads ahead, whatever waits behind it.
	if most := watch.bytes["archive.1"]; most > 300<<20 {
		t.Errorf("the sink took %d MB", most>>20)
	}
}

// memory is the most that each process took, and how far the archive is behind.
type memory struct {
	bytes map[string]int64
	most  map[string]string
	lag   uint64
}

func newMemory() *memory { return &memory{bytes: map[string]int64{}, most: map[string]string{}} }

func (m *memory) look(s *stack) {
	snapshot := s.status()
	note := func(name string, n int64) {
		if n > m.bytes[name] {
			m.bytes[name], m.most[name] = n, fmt.Sprintf("%d MB", n>>20)
		}
	}
	for _, p := range snapshot.Platform {
		note(p.Name, p.RSSBytes)
	}
	for _, service := range snapshot.Services {
		for _, i := range service.Instances {
			note(i.Name, i.RSSBytes)
		}
	}
	for _, stream := range snapshot.Streams {
		for _, r := range stream.Consumers {
			if stream.Name == "events.routed" && r.Service == "archive" {
				m.lag = r.Lag + uint64(max(r.InFlight, 0))
			}
		}
	}
}

func askRows(t *testing.T, pg *testkit.TestPostgres, statement string, into ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, statement).Scan(into...); err != nil {
		t.Fatal(err)
	}
}

// countRows is what the archive has; nothing before the sink has made it.
func countRows(t *testing.T, pg *testkit.TestPostgres) (rows int) {
	t.Helper()
	var made bool
	if askRows(t, pg, `SELECT to_regclass('events') IS NOT NULL`, &made); made {
		askRows(t, pg, `SELECT count(*) FROM events`, &rows)
	}
	return rows
}

func countDistinct(t *testing.T, pg *testkit.TestPostgres) (rows, distinct int) {
	t.Helper()
	askRows(t, pg, `SELECT count(*), count(DISTINCT id) FROM events`, &rows, &distinct)
	return rows, distinct
}
