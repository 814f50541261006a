package main

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/hozotest"
)

// The test sets the environment, so it does not run in parallel.
func TestRepositoriesAreSummarised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	t.Setenv("DATABASE", path)
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	env := hozotest.New(t, hozotest.Config{Manifest: "../hozo.yaml"})
	env.Run("report", hozo.Stage(routed, watch), hozo.Handle(summary, summarise))
	if _, err := routed.At("events.routed.push").Publish(t.Context(), env.Conn(), []byte(`{"repo":{"name":"a/b"}}`)); err != nil {
		t.Fatal(err)
	}
	env.Drain() // the table is not there yet: the task waits for its next attempt
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE events(repo TEXT, type TEXT); INSERT INTO events VALUES ('a/b', 'PushEvent'), ('a/b', 'ForkEvent'), ('c/d', 'PushEvent')`); err != nil {
		t.Fatal(err)
	}
	env.Advance(time.Minute)
	var events, types int
	if err := db.QueryRowContext(t.Context(), `SELECT events, types FROM repo_summary WHERE repo = 'a/b'`).Scan(&events, &types); err != nil || events != 2 || types != 2 {
		t.Errorf("the summary has %d events of %d types, %v", events, types, err)
	}
	if dead := env.DeadLetters(); len(dead) != 0 {
		t.Errorf("the dead letters are %+v", dead)
	}
}
