package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/postgres"
	"github.com/hozo-dev/hozo/sink/sinktest"
	"github.com/hozo-dev/hozo/wire"
	"github.com/jackc/pgx/v5"
)

const (
	stream = "events.test"
	envURL = "POSTGRES_TEST_URL" // tells the child where the server is
)

func TestMain(m *testing.M) {
	testkit.Main(m, testkit.Child("writer", sinktest.Writer(func(_ context.Context, dir string) (sink.Target, error) {
		return openIn(os.Getenv(envURL), dir)
	})))
}

// tableOf gives each of the suite's folders a table of its own in one database.
func tableOf(dir string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(dir))
	return fmt.Sprintf("t_%x", h.Sum64())
}

func openIn(server, dir string) (sink.Target, error) {
	t, err := postgres.Open(server, postgres.Config{Table: tableOf(dir), Columns: map[string]string{"n": "n"}})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func harness(server string) sinktest.Harness {
	return sinktest.Harness{
		Poison: []byte(`{"n":`),
		Open:   func(_ context.Context, dir string) (sink.Target, error) { return openIn(server, dir) },
		Rows: func(t testing.TB, dir, source string) []string {
			return query[string](t, server, `SELECT body::text FROM `+tableOf(dir)+` WHERE stream = '`+source+`' ORDER BY seq, idx`)
		},
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	server := testkit.Postgres(t).URL
	sinktest.Run(t, harness(server))
}

func TestKilledWriterLeavesRowsEqualToLedger(t *testing.T) { //nolint:paralleltest // the child gets its environment
	server := testkit.Postgres(t).URL
	t.Setenv(envURL, server)
	sinktest.Kill(t, harness(server), "writer")
}

func query[T any](t testing.TB, server, q string) []T {
	t.Helper()
	ctx := testkit.Context(t)
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return all
}

func exec(t *testing.T, server, statement string) {
	t.Helper()
	ctx := testkit.Context(t)
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func openTable(t *testing.T, server string, cfg postgres.Config) *postgres.Target {
	t.Helper()
	target, err := postgres.Open(server, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := target.Watermark(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	return target
}

func batch(first uint64, events ...string) sink.Batch {
	b := sink.Batch{Source: stream}
	for i, e := range events {
		b.Frames = append(b.Frames, sinktest.Frame(stream, first+uint64(i), wire.CodecNone, []byte(e)))
	}
	return b
}

func TestColumnsHoldTheValuesOfTheirPaths(t *testing.T) {
	t.Parallel()
	server := testkit.Postgres(t).URL
	exec(t, server, `CREATE TABLE typed (stream text, seq bigint, idx int, subject text, body jsonb, n numeric, at timestamptz, ok boolean, "select" jsonb, word text)`)
	target := openTable(t, server, postgres.Config{Table: "typed", Columns: map[string]string{
		"n": "a.n", "at": "at", "ok": "list.1", "select": "a", "word": "word", "later": "no.such",
	}})
	if _, err := target.Write(t.Context(), batch(1,
		`{"a":{"n":12345678901234567890.5},"at":"2026-01-02T03:04:05Z","list":[1,true],"word":"tab\there \\ and\nthere\r\\N"}`,
		`{"a":null,"word":"\\N"}`)); err != nil {
		t.Fatal(err)
	}
	got := query[string](t, server, `SELECT concat_ws('|', n::text, at AT TIME ZONE 'UTC', ok::text, "select"::text, quote_nullable(word), quote_nullable(later)) FROM typed ORDER BY seq`)
	want := []string{
		`12345678901234567890.5|2026-01-02 03:04:05|true|{"n": 12345678901234567890.5}|` + "E'tab\there \\\\ and\nthere\r\\\\N'|NULL",
		`E'\\N'|NULL`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("rows\n%q\nwant\n%q", got, want)
	}
}

func TestEventsThatTheTableRefusesAreNamed(t *testing.T) {
	t.Parallel()
	server := testkit.Postgres(t).URL
	exec(t, server, `CREATE TABLE strict (stream text, seq bigint, idx int, subject text, body jsonb, n int CHECK (n < 100), id text UNIQUE)`)
	target := openTable(t, server, postgres.Config{Table: "strict", Columns: map[string]string{"n": "n", "id": "id"}})
	b := batch(1, `{"n":1,"id":"a"}`, `{"n":"x"}`, `{"n":2,"text":"\u0000"}`, `{"n":1000}`, `{"n":3,"id":"a"}`, `{"n":4}`, "{\"n\":5,\"t\":\"\xff\"}", `{"n":6}`)
	var refused []uint64
	for range 3 { // what is no JSON is found first
		_, err := target.Write(t.Context(), b)
		if err == nil {
			break
		}
		rows, ok := errors.AsType[*sink.RowError](err)
		if !ok {
			t.Fatalf("the write gave %v", err)
		}
		for _, row := range rows.Rows {
			refused = append(refused, row.ID.Seq)
		}
		b = b.Without(rows.Rows)
	}
	slices.Sort(refused)
	if want := []uint64{2, 3, 4, 5, 7}; !slices.Equal(refused, want) {
		t.Errorf("the events %d are refused, want %d", refused, want)
	}
	if got := query[int64](t, server, `SELECT seq FROM strict ORDER BY seq`); !slices.Equal(got, []int64{1, 6, 8}) {
		t.Errorf("the rows are of the events %d", got)
	}
}

// A server that crashes, or stands still, in the middle of the writing delays rows and neither loses nor doubles one.
func TestServerThatCrashesOrHangsLosesNothing(t *testing.T) {
	t.Parallel()
	pg := testkit.Postgres(t)
	target := openTable(t, pg.URL, postgres.Config{})
	const last = 300
	for seq := uint64(1); seq <= last; seq++ {
		switch seq {
		case 100:
			pg.Kill(t)
			if _, err := target.Write(t.Context(), sinktest.Frames(stream, seq, seq)); err == nil {
				t.Fatal("a write to a dead server succeeded")
			}
			pg.Start(t)
		case 200:
			pg.Freeze(t)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := target.Write(ctx, sinktest.Frames(stream, seq, seq)); err == nil {
				t.Fatal("a write to a server that stands still succeeded")
			}
			cancel()
			pg.Thaw(t)
		}
		testkit.Eventually(t, func() bool {
			w, err := target.Write(t.Context(), sinktest.Frames(stream, seq, seq))
			return err == nil && w == seq
		}, "the server takes the batch")
	}
	if got, want := query[string](t, pg.URL, `SELECT body::text FROM events ORDER BY seq, idx`), sinktest.Events(stream, 1, last); !slices.Equal(got, want) {
		t.Errorf("the table holds %d rows, want %d", len(got), len(want))
	}
}

func TestUserWhoMayNotCreateWritesIntoTablesThatAreThere(t *testing.T) {
	t.Parallel()
	server := testkit.Postgres(t).URL
	openTable(t, server, postgres.Config{})
	exec(t, server, `CREATE ROLE writer LOGIN PASSWORD 'w'; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
		GRANT INSERT ON events TO writer; GRANT SELECT, INSERT, UPDATE ON hozo_watermark TO writer`)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("writer", "w")
	target := openTable(t, u.String(), postgres.Config{})
	if _, err := target.Write(t.Context(), sinktest.Frames(stream, 1, 3)); err != nil {
		t.Error(err)
	}
}

func TestBadConfigurationIsAFaultWithoutThePassword(t *testing.T) {
	t.Parallel()
	for server, cfg := range map[string]postgres.Config{
		"postgres://app:geheim@127.0.0.1:none/shop": {},
		"postgres://app:geheim@localhost/shop":      {Table: "a b"},
		"postgres://app:geheim@127.0.0.1/shop":      {Columns: map[string]string{"BODY": "x"}},
	} {
		_, err := postgres.Open(server, cfg)
		if fault.Code(err) != "postgres/config" || strings.Contains(fault.Render(err), "geheim") {
			t.Errorf("%s gives %s", server, fault.Render(err))
		}
	}
	server := testkit.Postgres(t).URL
	exec(t, server, `CREATE TABLE mine (x int)`)
	target, err := postgres.Open(server, postgres.Config{Table: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := target.Watermark(t.Context(), stream); fault.Code(err) != "postgres/schema" {
		t.Errorf("a table of somebody else: %v", err)
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("hozo", "geheim")
	wrong, err := postgres.Open(u.String(), postgres.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := wrong.Watermark(t.Context(), stream); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a wrong password: %v", err)
	}
}

// How many bytes a second go into a table, with three columns?
func BenchmarkWrite(b *testing.B) {
	target, err := postgres.Open(testkit.Postgres(b).URL, postgres.Config{Columns: map[string]string{"id": "id", "type": "type", "repo": "repo.name"}})
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	if _, err := target.Watermark(b.Context(), stream); err != nil {
		b.Fatal(err)
	}
	event := []byte(`{"id":"2489651045","type":"PushEvent","actor":{"id":1,"login":"someone"},"repo":{"id":2,"name":"a/b"},"payload":{"text":"` + strings.Repeat("x", 600) + `"}}`)
	events := make([][]byte, 300)
	for i := range events {
		events[i] = event
	}
	b.SetBytes(int64(len(events) * 16 * len(event)))
	b.ReportAllocs()
	for seq := uint64(0); b.Loop(); {
		one := sink.Batch{Source: stream, Frames: []*bus.Frame{}}
		for range 16 {
			seq++
			one.Frames = append(one.Frames, sinktest.Frame(stream, seq, wire.CodecZstd, events...))
		}
		if _, err := target.Write(b.Context(), one); err != nil {
			b.Fatal(err)
		}
	}
}
