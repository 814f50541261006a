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
	rows, distinct := countArchive(t, data)
	if rows != want || distinct != want {
		t.Errorf("archive: %d rows of %d distinct events, want %d: %d lost, %d doubled", rows, distinct, want, want-distinct, rows-distinct)
	}
	if diff := cmp.Diff(types, archivedTypes(t, data)); diff != "" {
		t.Errorf("archive by type (-sent +stored):\n%s", diff)
	}

	lake := newLake()
	lake.read(t, data)
	doubled := 0
	for _, n := range lake.ids {
		doubled += n - 1
	}
	if len(lake.ids) != want || doubled != 0 {
		t.Errorf("lake: %d distinct events, want %d; %d doubled", len(lake.ids), want, doubled)
	}
	if diff := cmp.Diff(types, lake.types); diff != "" {
		t.Errorf("lake by type (-sent +stored):\n%s", diff)
	}
}

// openArchive opens the archive to be read, also while it is written.
func openArchive(t *testing.T, data string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "events.db")+"?_pragma=query_only(1)&_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// countArchive counts the rows of the archive, and how many events they are.
func countArchive(t *testing.T, data string) (rows, distinct int) {
	t.Helper()
	db := openArchive(t, data)
	defer db.Close()
	if err := db.QueryRow(`SELECT count(*), count(DISTINCT id) FROM events`).Scan(&rows, &distinct); err != nil {
		t.Fatalf("count the archive: %v", err)
	}
	return rows, distinct
}

func archivedTypes(t *testing.T, data string) map[string]int {
	t.Helper()
	db := openArchive(t, data)
	defer db.Close()
	types := map[string]int{}
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
		types[kind] = n
	}
	if err := result.Err(); err != nil {
		t.Fatal(err)
	}
	return types
}

// lake is what the files of the lake hold.
type lake struct {
	seen       map[string]bool // files that were read; a file appears when it is complete
	types, ids map[string]int
}

func newLake() *lake {
	return &lake{seen: map[string]bool{}, types: map[string]int{}, ids: map[string]int{}}
}

// read reads the files that are new.
func (l *lake) read(t *testing.T, data string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(data, "lake", "*", "*.ndjson.zst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if !l.seen[path] {
			l.seen[path] = true
			l.readFile(t, path)
		}
	}
}

func (l *lake) readFile(t *testing.T, path string) {
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
			l.types[typeOf(event)]++
			l.ids[gjson.GetBytes(event, "id").String()]++
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
}
