// Package sqlite writes streams into a table of an SQLite database. Each event is one row: where it was stored, the
// values that the configured columns pick from its JSON, and its bytes as they are.
//
// Rows and watermark are committed in one transaction, so every event is in the table exactly once, whatever crashes. A
// database is written by one writer for each source and table; a later one takes over and the earlier one is refused.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/table"
	_ "modernc.org/sqlite" // the driver
)

const (
	// DefaultTable is the table that events are written to.
	DefaultTable = "events"

	// busyTimeout is how long a statement waits for another process's lock: readers in WAL mode take none, so only a
	// checkpoint, a migration or another writer's transaction is waited for.
	busyTimeout = 10 * time.Second
)

// Durability says what a committed row survives.
type Durability string

const (
	// Process (the default) survives kill -9 of every process: the write-ahead log is in the kernel's hands, which
	// writes it out in its own time. After a power cut the newest batches may be missing, and so is their watermark: the
	// sink reads them again from the stream. PRAGMA synchronous=NORMAL.
	Process Durability = "process"

	// Power survives a power cut: each batch is synced before it counts. PRAGMA synchronous=FULL.
	Power Durability = "power"
)

// Config tunes a Target. The zero Config is ready for production.
type Config struct {
	Table      string            // default "events"
	Columns    map[string]string // column to dotted path in the event's JSON: "repo": "repo.name"
	Durability Durability        // default Process
}

// Target is one table of a database. It is a sink.Target.
type Target struct {
	db     *sql.DB
	path   string
	schema schema

	mu     sync.Mutex // one transaction at a time: SQLite has one writer
	epochs map[string]int64
	writer *writer
}

var _ sink.Target = (*Target)(nil)

// Open opens the database at path and creates what is missing: folder, file, table and columns. Errors are faults
// sqlite/config and sqlite/schema, or the driver's own.
func Open(ctx context.Context, path string, cfg Config) (*Target, error) {
	cfg.Table = cmp.Or(cfg.Table, DefaultTable)
	cfg.Durability = cmp.Or(cfg.Durability, Process)
	schema, err := newSchema(cfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create folder of database: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, cfg.Durability))
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	// Statements are prepared on the one connection, and a second writer could only wait for the first.
	db.SetMaxOpenConns(1)
	t := &Target{db: db, path: path, schema: schema, epochs: make(map[string]int64)}
	if err := t.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return t, nil
}

func dsn(path string, d Durability) string {
	synchronous := "NORMAL"
	if d == Power {
		synchronous = "FULL"
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(WAL)",
		"synchronous(" + synchronous + ")",
		// 32 MiB of log between two checkpoints instead of 4: pages that many batches touch are copied and synced once,
		// which makes writing a third faster. Readers search the longer log by its index.
		"wal_autocheckpoint(8000)",
		"journal_size_limit(67108864)", // a log that a long reader made grow shrinks to 64 MiB again
		"cache_size(-16384)",           // 16 MiB of pages: the ends of the table and of its indexes
	}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// prepare creates the tables and the statements.
func (t *Target) prepare(ctx context.Context) error {
	if err := t.schema.create(ctx, t.db, t.path); err != nil {
		return err
	}
	w, err := newWriter(ctx, t.db, t.schema)
	if err != nil {
		return fmt.Errorf("prepare statements for %s: %w", t.path, err)
	}
	t.writer = w
	return nil
}

// Watermark takes source over from any writer before and returns its watermark.
func (t *Target) Watermark(ctx context.Context, source string) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var seq, epoch int64
	err := t.db.QueryRowContext(ctx, `
		INSERT INTO `+table.Watermark+`(source, target, seq, epoch) VALUES (?1, ?2, 0, 1)
		ON CONFLICT(source, target) DO UPDATE SET epoch = epoch + 1
		RETURNING seq, epoch`, source, t.schema.Table).Scan(&seq, &epoch)
	if err != nil {
		return 0, fmt.Errorf("claim %s in %s: %w", source, t.path, err)
	}
	t.epochs[source] = epoch
	return uint64(seq), nil
}

// Write commits the batch's rows and its watermark. It returns sink.ErrFenced when another writer has claimed the
// source, and a *sink.RowError for events whose columns cannot be read or which break a constraint of the table.
func (t *Target) Write(ctx context.Context, b sink.Batch) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	epoch, claimed := t.epochs[b.Source]
	if !claimed {
		return 0, fmt.Errorf("write %s: Watermark was not called for it", b.Source)
	}
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("begin in %s: %w", t.path, err)
	}
	watermark, err := t.write(ctx, tx, b, epoch)
	if err != nil {
		// The first error says more than that of a rollback, which the driver does by itself on a broken transaction.
		_ = tx.Rollback()
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		// A failed commit leaves the transaction open on the one connection; without this the next begin fails.
		_, _ = t.db.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return 0, fmt.Errorf("commit in %s: %w", t.path, err)
	}
	return watermark, nil
}

func (t *Target) write(ctx context.Context, tx *sql.Tx, b sink.Batch, epoch int64) (uint64, error) {
	after, err := t.position(ctx, tx, b.Source, epoch)
	if err != nil {
		return 0, err
	}
	last := b.Last()
	if last <= after {
		return after, nil
	}
	if err := t.writer.insert(ctx, tx, b, after); err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE `+table.Watermark+` SET seq = ?1 WHERE source = ?2 AND target = ?3`,
		int64(last), b.Source, t.schema.Table)
	if err != nil {
		return 0, fmt.Errorf("move watermark of %s: %w", b.Source, err)
	}
	return last, nil
}

// position reads the watermark inside the transaction, which holds the write lock, and refuses a writer whose time is over.
func (t *Target) position(ctx context.Context, tx *sql.Tx, source string, mine int64) (uint64, error) {
	var seq, epoch int64
	err := tx.QueryRowContext(ctx, `SELECT seq, epoch FROM `+table.Watermark+` WHERE source = ?1 AND target = ?2`,
		source, t.schema.Table).Scan(&seq, &epoch)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, &fault.Error{
			Code: "sqlite/watermark-gone", Where: t.path, What: fmt.Sprintf("the watermark of %s was deleted while the sink ran", source),
			Fix: "restart the sink; it reads the stream from its start, so empty the table first",
		}
	case err != nil:
		return 0, fmt.Errorf("read watermark of %s: %w", source, err)
	case epoch != mine:
		return 0, fmt.Errorf("write %s to %s: %w", source, t.path, sink.ErrFenced)
	}
	return uint64(seq), nil
}

// Flush returns the watermark: Write holds nothing back.
func (t *Target) Flush(ctx context.Context, source string) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var seq int64
	err := t.db.QueryRowContext(ctx, `SELECT seq FROM `+table.Watermark+` WHERE source = ?1 AND target = ?2`,
		source, t.schema.Table).Scan(&seq)
	if err != nil {
		return 0, fmt.Errorf("read watermark of %s: %w", source, err)
	}
	return uint64(seq), nil
}

// Close closes the database.
func (t *Target) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.writer.close(), t.db.Close())
}
