package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	pythonName = "python"
	python3    = "/usr/bin/python3" // the one that Debian's packages are for
)

// python is the stack that a small team glues together: Tornado takes requests, pyzmq PUSH/PULL carries batches through
// classify ×2, enrich and route, and Celery over Redis stores them in PostgreSQL with COPY. Its servers run from a
// temporary folder on free loopback ports with passwords of their own.
type python struct {
	source, dir string
	port        int
	programs    children
	redis       redis
	postgres    postgres
}

var _ contender = (*python)(nil)

func newPython(source, dir string) *python { return &python{source: source, dir: dir} }

func (p *python) name() string { return pythonName }

func (p *python) durability() string {
	return "answer: nothing (ZeroMQ, Redis in memory); row: kill of a client (unlogged table)"
}

func (p *python) url() string { return fmt.Sprintf("http://127.0.0.1:%d/v1/ingest", p.port) }

func (p *python) roots() []int {
	return slices.Concat(p.programs.pids(), p.redis.pids(), p.postgres.pids())
}

func (p *python) start(ctx context.Context) error {
	// 0711, and the folder above: the postgres user must reach its own folder in it.
	if err := errors.Join(os.Mkdir(p.dir, 0o711), os.Chmod(filepath.Dir(p.dir), 0o711)); err != nil {
		return err
	}
	secret := rand.Text()
	p.programs.dir = p.dir
	if err := p.postgres.start(ctx, p.dir, secret); err != nil {
		return err
	}
	schema, err := os.ReadFile(filepath.Join(p.source, "schema.sql"))
	if err != nil {
		return err
	}
	if _, err := p.postgres.query(ctx, string(schema)); err != nil {
		return err
	}
	if err := p.redis.start(ctx, p.dir, secret); err != nil {
		return err
	}
	return p.startPrograms(ctx)
}

func (p *python) startPrograms(ctx context.Context) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	p.port = port
	socket := func(name string) string { return "ipc://" + filepath.Join(p.dir, name+".sock") }
	env := []string{
		fmt.Sprintf("PEER_PORT=%d", port),
		"PEER_RAW=" + socket("raw"), "PEER_CLASSIFIED=" + socket("classified"), "PEER_ENRICHED=" + socket("enriched"),
		"PEER_REDIS=" + p.redis.url(), "PEER_DATABASE=" + p.postgres.url(),
		"PYTHONDONTWRITEBYTECODE=1", "C_FORCE_ROOT=1", // Celery as root, like the rest of a benchmark that root runs
	}
	for _, program := range []struct {
		name string
		argv []string
	}{
		// Two workers, as many as the classifiers: on two cores a third only waits.
		{"celery", []string{
			"-m", "celery", "-A", "tasks", "worker", "--concurrency", "2", "--loglevel", "WARNING",
			"--without-gossip", "--without-mingle", "--without-heartbeat",
		}},
		{"route", []string{"route.py"}},
		{"enrich", []string{"enrich.py"}},
		{"classify-1", []string{"classify.py"}},
		{"classify-2", []string{"classify.py"}},
		{"server", []string{"server.py"}},
	} {
		if err := p.programs.start(program.name, env, nil, p.source, append([]string{python3}, program.argv...)...); err != nil {
			return err
		}
	}
	err = poll(ctx, "Tornado", 20*time.Millisecond, func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/healthz", port), nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, p.programs.alive()
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
	if err != nil {
		return err
	}
	// The database connections of the two workers are the last thing to come up.
	return poll(ctx, "Celery", 50*time.Millisecond, func() (bool, error) {
		n, err := p.postgres.query(ctx,
			"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
		return n == "2", errors.Join(err, p.programs.alive())
	})
}

func (p *python) stop(context.Context) error {
	// SIGTERM ends the programs at once or soon; SIGINT is PostgreSQL's fast shutdown.
	return errors.Join(p.programs.stop(syscall.SIGTERM), p.redis.stop(syscall.SIGTERM), p.postgres.stop(syscall.SIGINT))
}

// await reads the counter that the tasks add to when their transaction has committed.
func (p *python) await(ctx context.Context, n uint64) (time.Time, error) {
	var got uint64
	err := poll(ctx, "rows in PostgreSQL", 10*time.Millisecond, func() (bool, error) {
		var err error
		if got, err = p.redis.counter(ctx, "stored"); err != nil {
			return false, err
		}
		return got >= n, p.programs.alive()
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("%d of %d stored: %w", got, n, err)
	}
	return time.Now(), nil
}

func (p *python) each(ctx context.Context, visit func(id, kind []byte)) error {
	return p.postgres.rows(ctx, "COPY (SELECT id, type FROM events) TO STDOUT", func(line []byte) {
		id, kind, _ := bytes.Cut(line, []byte("\t"))
		visit(id, kind)
	})
}
