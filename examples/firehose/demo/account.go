package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/tidwall/gjson"
	_ "modernc.org/sqlite"

	"github.com/hozo-dev/hozo/internal/feed"
	"github.com/hozo-dev/hozo/internal/status"
)

// account is what became of every event, counted in the stores themselves.
type account struct {
	accepted, rejected int64
	parked             int64
	bytes              int64
	took               time.Duration // from the first byte sent to the last row stored
	archive, lake      stock
	summaries          int64
	expected           map[string]int // per type, when it is known
	bottleneck         string
	platform           int64
}

// stock is what one store holds.
type stock struct {
	rows, distinct int64
	routes, types  map[string]int
}

func (d demo) account(ctx context.Context, v *view, sent feed.Progress, expected map[string]int) (account, error) {
	a := account{
		accepted: sent.Accepted, rejected: sent.Rejected, bytes: sent.Bytes, took: v.stored.Sub(v.started),
		expected: expected, bottleneck: v.bottleneck(), platform: v.platform,
	}
	var s status.Snapshot
	if err := d.query(ctx, &s, "status"); err != nil {
		return a, err
	}
	for _, service := range s.Services {
		a.parked += int64(service.Traffic.Parked)
	}
	var err error
	if a.archive, a.summaries, err = countArchive(ctx, filepath.Join(d.dir, "data", "events.db")); err != nil {
		return a, fmt.Errorf("count the archive: %w", err)
	}
	if a.lake, err = countLake(filepath.Join(d.dir, "data", "lake")); err != nil {
		return a, fmt.Errorf("count the lake: %w", err)
	}
	return a, nil
}

func countArchive(ctx context.Context, path string) (stock, int64, error) {
	s := stock{routes: map[string]int{}, types: map[string]int{}}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=query_only(1)&_pragma=busy_timeout(10000)")
	if err != nil {
		return s, 0, err
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, `SELECT count(*), count(DISTINCT id) FROM events`).Scan(&s.rows, &s.distinct); err != nil {
		return s, 0, err
	}
	rows, err := db.QueryContext(ctx, `SELECT subject, type, count(*) FROM events GROUP BY 1, 2`)
	if err != nil {
		return s, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var route, kind string
		var n int
		if err := rows.Scan(&route, &kind, &n); err != nil {
			return s, 0, err
		}
		s.routes[route] += n
		s.types[kind] += n
	}
	if err := rows.Err(); err != nil {
		return s, 0, err
	}
	var summaries int64
	// The report may have had too few events to be asked for one.
	_ = db.QueryRowContext(ctx, `SELECT count(*) FROM repo_summary`).Scan(&summaries)
	return s, summaries, nil
}

func countLake(dir string) (stock, error) {
	s := stock{types: map[string]int{}}
	ids := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.ndjson.zst"))
	if err != nil {
		return s, err
	}
	for _, path := range files {
		if err := countFile(path, &s, ids); err != nil {
			return s, fmt.Errorf("%s: %w", path, err)
		}
	}
	s.distinct = int64(len(ids))
	return s, nil
}

func countFile(path string, s *stock, ids map[string]bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	z, err := zstd.NewReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	r := bufio.NewReaderSize(z, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if event := bytes.TrimSpace(line); len(event) > 0 {
			found := gjson.GetManyBytes(event, "id", "type")
			ids[found[0].String()] = true
			s.types[found[1].String()]++
			s.rows++
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (a account) lost() int64 {
	return max(a.accepted-a.parked-a.archive.distinct, a.accepted-a.parked-a.lake.distinct, 0)
}

func (a account) duplicated() int64 {
	return (a.archive.rows - a.archive.distinct) + (a.lake.rows - a.lake.distinct)
}

// check says what does not balance.
func (a account) check() error {
	var wrong []error
	if a.lost() != 0 || a.duplicated() != 0 {
		wrong = append(wrong, fmt.Errorf("the account does not balance: %d lost, %d duplicated", a.lost(), a.duplicated()))
	}
	if !maps.Equal(a.archive.types, a.lake.types) {
		wrong = append(wrong, errors.New("the archive and the lake hold different events"))
	}
	if a.expected != nil && !maps.Equal(a.archive.types, a.expected) {
		wrong = append(wrong, errors.New("the archive does not hold the events that were generated"))
	}
	if a.accepted == 0 {
		wrong = append(wrong, errors.New("nothing was accepted"))
	}
	return errors.Join(wrong...)
}

func (a account) print(out io.Writer) {
	seconds := a.took.Seconds()
	rate := float64(a.bytes) / 1e6 / seconds
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\naccepted\t%d\t\n", a.accepted)
	fmt.Fprintf(w, "rejected\t%d\t\n", a.rejected)
	fmt.Fprintf(w, "stored in the archive\t%d\t\n", a.archive.rows)
	for _, route := range slices.Sorted(maps.Keys(a.archive.routes)) {
		fmt.Fprintf(w, "%s\t%d\t\n", route, a.archive.routes[route])
	}
	for _, kind := range slices.Sorted(maps.Keys(a.archive.types)) {
		fmt.Fprintf(w, "%s\t%d\t\n", kind, a.archive.types[kind])
	}
	fmt.Fprintf(w, "stored in the lake\t%d\t\n", a.lake.rows)
	fmt.Fprintf(w, "summaries by tasks\t%d\t\n", a.summaries)
	fmt.Fprintf(w, "parked\t%d\t\n", a.parked)
	fmt.Fprintf(w, "lost\t%d\t\n", a.lost())
	fmt.Fprintf(w, "duplicated\t%d\t\n", a.duplicated())
	_ = w.Flush() // a closed terminal has no reader
	fmt.Fprintf(out, "\n%.1f MB in %.1f s: %.1f MB/s, %.0f GB/day\n", float64(a.bytes)/1e6, seconds, rate, rate*86400/1000)
	fmt.Fprintf(out, "first saturated stage: %s\n", a.bottleneck)
	fmt.Fprintf(out, "platform memory (keeper, standby, node, broker): at most %.0f MB\n", float64(a.platform)/1e6)
	if a.check() == nil {
		fmt.Fprintln(out, "the account balances")
	}
}
