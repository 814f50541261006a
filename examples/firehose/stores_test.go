package firehose_test

import (
	"bufio"
	"bytes"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/tidwall/gjson"
	_ "modernc.org/sqlite"
)

func typeOf(line []byte) string { return gjson.GetBytes(line, "type").String() }

// checkStores counts what the archive and the lake hold: every event of every type exactly once.
func checkStores(t *testing.T, data string, want int, types map[string]int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "events.db")+"?_pragma=query_only(1)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var rows, distinct int
	if err := db.QueryRow(`SELECT count(*), count(DISTINCT id) FROM events`).Scan(&rows, &distinct); err != nil {
		t.Fatal(err)
	}
	if rows != want || distinct != want {
		t.Errorf("archive: %d rows of %d distinct events, want %d: %d lost, %d doubled", rows, distinct, want, want-distinct, rows-distinct)
	}
	archived := map[string]int{}
	result, err := db.Query(`SELECT type, count(*) FROM events GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer result.Close()
	for result.Next() {
		var kind string
		var n int
		if err := result.Scan(&kind, &n); err != nil {
			t.Fatal(err)
		}
		archived[kind] = n
	}
	if err := result.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(types, archived); diff != "" {
		t.Errorf("archive by type (-sent +stored):\n%s", diff)
	}

	lake, ids := map[string]int{}, map[string]int{}
	files, err := filepath.Glob(filepath.Join(data, "lake", "*", "*.ndjson.zst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		readLake(t, path, lake, ids)
	}
	doubled := 0
	for _, n := range ids {
		doubled += n - 1
	}
	if len(ids) != want || doubled != 0 {
		t.Errorf("lake: %d distinct events, want %d; %d doubled", len(ids), want, doubled)
	}
	if diff := cmp.Diff(types, lake); diff != "" {
		t.Errorf("lake by type (-sent +stored):\n%s", diff)
	}
}

func readLake(t *testing.T, path string, types, ids map[string]int) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for r := bufio.NewReaderSize(z, 1<<20); ; {
		line, err := r.ReadBytes('\n')
		if event := bytes.TrimSpace(line); len(event) > 0 {
			types[typeOf(event)]++
			ids[gjson.GetBytes(event, "id").String()]++
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
}
