package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/sinktest"
	"github.com/hozo-dev/hozo/sink/sqlite"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

const stream = "events.test"

func TestMain(m *testing.M) { testkit.Main(m, testkit.Child("writer", sinktest.Writer(openIn))) }

func openIn(ctx context.Context, dir string) (sink.Target, error) {
	t, err := sqlite.Open(ctx, filepath.Join(dir, "events.db"), sqlite.Config{Columns: map[string]string{"n": "n"}})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func harness() sinktest.Harness {
	return sinktest.Harness{Open: openIn, Poison: []byte(`{"n":`), Rows: func(t testing.TB, dir, source string) []string {
		return query[string](t, filepath.Join(dir, "events.db"), `SELECT body FROM events WHERE stream = '`+source+`' ORDER BY rowid`)
	}}
}

func TestTarget(t *testing.T) { sinktest.Run(t, harness()) }

func TestKilledWriterLeavesRowsEqualToLedger(t *testing.T) {
	t.Parallel()
	sinktest.Kill(t, harness(), "writer")
}

func TestFullDiskDelaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	sinktest.FullDisk(t, harness())
}

func query[T any](t testing.TB, path, q string) []T {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.ReplaceAll(path, "?", "%3f")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func openDB(t *testing.T, path string, cfg sqlite.Config) *sqlite.Target {
	t.Helper()
	target, err := sqlite.Open(t.Context(), path, cfg)
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

func write(t *testing.T, target *sqlite.Target, frames ...*bus.Frame) {
	t.Helper()
	if _, err := target.Write(t.Context(), sink.Batch{Source: frames[0].Stream, Frames: frames}); err != nil {
		t.Fatal(err)
	}
}

func TestColumnsHoldTheValuesOfTheirPaths(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sub", "a b?.db")
	target := openDB(t, path, sqlite.Config{Table: "order", Columns: map[string]string{
		"select": "a.b", "item": "list.1", "odd": "x*y.z|w", "missing": "no.such", "whole": "obj",
	}})
	for i, c := range []struct{ event, want string }{
		{`{"a":{"b":"text"},"list":[1,2],"x*y":{"z|w":true},"obj":{"k":[1]}}`, `text/text integer/2 integer/1 null/ text/{"k":[1]}`},
		{`{"a":{"b":null},"list":[1,2.5],"x*y":{"z|w":false},"obj":[]}`, `null/ real/2.5 integer/0 null/ text/[]`},
		{`{"a":{"b":9223372036854775807},"list":[1,18446744073709551616],"obj":"\u00e9\n"}`, "integer/9223372036854775807 text/18446744073709551616 null/ null/ text/é\n"},
		{`[1]`, `null/ null/ null/ null/ null/`},
	} {
		write(t, target, sinktest.Frame(stream, uint64(i+1), wire.CodecZstd, []byte(c.event)))
		var parts []string
		for _, col := range []string{"select", "item", "odd", "missing", "whole"} {
			parts = append(parts, fmt.Sprintf(`typeof("%s") || '/' || coalesce("%s", '')`, col, col))
		}
		got := query[string](t, path, `SELECT `+strings.Join(parts, "||' '||")+fmt.Sprintf(` FROM "order" WHERE seq = %d`, i+1))
		if !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s gives %q, want %q", c.event, got, c.want)
		}
	}
}

func TestRetriedEventKeepsItsFirstName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	target := openDB(t, path, sqlite.Config{})
	if _, err := target.Watermark(t.Context(), wire.RetryStream); err != nil {
		t.Fatal(err)
	}
	header := nats.Header{wire.HeaderSource: {"events.raw:17:3"}, wire.HeaderSubject: {"events.raw.x"}}
	write(t, target, sinktest.Message(wire.RetryStream, "hozo.retry.sink.events_raw.17.3", 5, header, []byte(`{}`)))
	got := query[string](t, path, `SELECT stream||' '||seq||' '||idx||' '||subject FROM events`)
	if want := []string{"events.raw 17 3 events.raw.x"}; !slices.Equal(got, want) {
		t.Fatalf("row is %q, want %q", got, want)
	}
}

func TestRowThatBreaksAConstraintIsPoisonAndItsNeighboursLand(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	openDB(t, path, sqlite.Config{Columns: map[string]string{"id": "id"}})
	query[string](t, path, `CREATE UNIQUE INDEX once ON events(id)`)
	target := openDB(t, path, sqlite.Config{Columns: map[string]string{"id": "id"}})
	var events [][]byte
	for i := range 200 {
		id := i
		if i == 70 || i == 199 {
			id = 5 // taken by then
		}
		events = append(events, fmt.Appendf(nil, `{"id":%d}`, id))
	}
	b := sink.Batch{Source: stream, Frames: []*bus.Frame{sinktest.Frame(stream, 1, wire.CodecZstd, events...)}}
	_, err := target.Write(t.Context(), b)
	rows, ok := errors.AsType[*sink.RowError](err)
	if !ok || len(rows.Rows) != 2 || rows.Rows[0].ID.Index != 70 || rows.Rows[1].ID.Index != 199 || fault.Code(rows.Rows[0].Err) != "sqlite/constraint" {
		t.Fatalf("write gave %v", err)
	}
	if _, err := target.Write(t.Context(), b.Without(rows.Rows)); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, path, `SELECT count(*) FROM events`); got[0] != 198 {
		t.Fatalf("%d rows, want 198", got[0])
	}
}

func TestTablesOfOneDatabaseHaveWatermarksOfTheirOwn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	a, b := openDB(t, path, sqlite.Config{Table: "a"}), openDB(t, path, sqlite.Config{Table: "b"})
	write(t, a, sinktest.Frames(stream, 1, 3).Frames...)
	write(t, b, sinktest.Frames(stream, 1, 1).Frames...)
	if got := query[int](t, path, `SELECT seq FROM hozo_watermark WHERE source = 'events.test' ORDER BY target`); !slices.Equal(got, []int{3, 1}) {
		t.Fatalf("watermarks are %v, want 3 and 1", got)
	}
}

func TestNewColumnIsAddedToAnOlderTable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	old := openDB(t, path, sqlite.Config{})
	write(t, old, sinktest.Frame(stream, 1, wire.CodecZstd, []byte(`{"n":1}`)))
	young := openDB(t, path, sqlite.Config{Columns: map[string]string{"n": "n"}, Durability: sqlite.Power})
	write(t, young, sinktest.Frame(stream, 2, wire.CodecZstd, []byte(`{"n":2}`)))
	if got := query[string](t, path, `SELECT coalesce(n, 'none') FROM events ORDER BY seq`); !slices.Equal(got, []string{"none", "2"}) {
		t.Fatalf("column holds %v", got)
	}
}

func TestBadNamesAreFaults(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	for name, cfg := range map[string]sqlite.Config{
		"table":      {Table: `x"; DROP TABLE events; --`},
		"sqlite":     {Table: "sqlite_master"},
		"watermark":  {Table: "HOZO_watermark"},
		"column":     {Columns: map[string]string{"a b": "a"}},
		"own column": {Columns: map[string]string{"Seq": "a"}},
		"empty path": {Columns: map[string]string{"a": ""}},
		"durability": {Durability: "none"},
	} {
		if _, err := sqlite.Open(t.Context(), path, cfg); fault.Code(err) != "sqlite/config" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	query[string](t, path, `CREATE TABLE mine(x)`)
	if _, err := sqlite.Open(t.Context(), path, sqlite.Config{Table: "mine"}); fault.Code(err) != "sqlite/schema" {
		t.Errorf("a table of somebody else: got %v", err)
	}
}

// What does a row cost, and how many allocations?
func BenchmarkWrite(b *testing.B) {
	target, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "events.db"), sqlite.Config{Columns: map[string]string{
		"id": "id", "type": "type", "repo": "repo.name",
	}})
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
	seq := uint64(0)
	for b.Loop() {
		batch := sink.Batch{Source: stream}
		for range 16 {
			seq++
			batch.Frames = append(batch.Frames, sinktest.Frame(stream, seq, wire.CodecZstd, events...))
		}
		if _, err := target.Write(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(seq)*300/b.Elapsed().Seconds(), "rows/s")
}
