// Command report keeps a small summary of each busy repository. The summary is slow work, so it waits as tasks and the
// flow of events never stops for it.
package main

import (
	"context"
	"database/sql"
	"os"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/task"
	"github.com/tidwall/gjson"
	_ "modernc.org/sqlite"
)

// every is how many events of a frame pass between two tasks.
const every = 20

type repository struct{ Name string }

var (
	routed  = bus.NewTopic[[]byte]("events.routed")
	summary = task.NewKind[repository]("repo.summary", task.Config{})
)

func main() {
	hozo.Main(hozo.Stage(routed, watch), hozo.Handle(summary, summarise))
}

func watch(_ context.Context, e bus.Event[[]byte], out *bus.Out) error {
	if e.ID.Index%every != 0 {
		return nil
	}
	return summary.EnqueueFrom(out, repository{gjson.GetBytes(e.Data, "repo.name").String()})
}

// summarise counts the repository's events anew, so running it twice does no harm.
func summarise(ctx context.Context, t task.Task[repository]) error {
	db, err := sql.Open("sqlite", "file:"+os.Getenv("DATABASE")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, `
		CREATE INDEX IF NOT EXISTS events_repo ON events(repo);
		CREATE TABLE IF NOT EXISTS repo_summary(repo TEXT PRIMARY KEY, events INTEGER, types INTEGER);
		INSERT OR REPLACE INTO repo_summary
			SELECT repo, count(*), count(DISTINCT type) FROM events WHERE repo = ?1 GROUP BY repo`, t.Args.Name)
	return err
}
