package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	source, dir  string
	secret       string
	port         int
	redisAddress string
	database     string // libpq address
	programs     children
	redis        children
	postgres     children
}

func newPython(source, dir string) *python { return &python{source: source, dir: dir} }

func (p *python) name() string { return pythonName }

func (p *python) durability() string {
	return "answer: nothing (ZeroMQ, Redis without AOF); stored: kill of a client (unlogged table)"
}

func (p *python) url() string { return fmt.Sprintf("http://127.0.0.1:%d/v1/ingest", p.port) }

func (p *python) roots() []int {
	return slices.Concat(p.programs.pids(), p.redis.pids(), p.postgres.pids())
}

func (p *python) start(ctx context.Context) error {
	if err := os.Mkdir(p.dir, 0o711); err != nil { // 0711: the postgres user must reach its own folder in it
		return err
	}
	if err := os.Chmod(filepath.Dir(p.dir), 0o711); err != nil {
		return err
	}
	p.secret = rand.Text()
	for _, c := range []*children{&p.programs, &p.redis, &p.postgres} {
		c.dir = p.dir
	}
	if err := p.startPostgres(ctx); err != nil {
		return err
	}
	if err := p.startRedis(ctx); err != nil {
		return err
	}
	return p.startPrograms(ctx)
}

func (p *python) startPostgres(ctx context.Context) error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return errors.New("PostgreSQL is not installed: run bench/setup.sh")
	}
	bin := filepath.Dir(found[len(found)-1])
	data := filepath.Join(p.dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	password := filepath.Join(data, "password")
	if err := os.WriteFile(password, []byte(p.secret), 0o600); err != nil {
		return err
	}
	credential, err := postgresUser(data, password)
	if err != nil {
		return err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", filepath.Join(data, "db"), "-U", "bench", "-A", "scram-sha-256",
		"--pwfile", password, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	initdb.Dir = data
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	settings := []string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=512MB", "max_wal_size=4GB",
		"synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0", "logging_collector=off",
	}
	argv := []string{filepath.Join(bin, "postgres"), "-D", filepath.Join(data, "db"), "-p", strconv.Itoa(port)}
	for _, setting := range settings {
		argv = append(argv, "-c", setting)
	}
	if err := p.postgres.start("postgres", nil, &syscall.SysProcAttr{Credential: credential}, data, argv...); err != nil {
		return err
	}
	p.database = fmt.Sprintf("postgresql://bench:%s@127.0.0.1:%d/postgres", p.secret, port)
	err = poll(ctx, "PostgreSQL", 50*time.Millisecond, func() (bool, error) {
		_, err := p.psql(ctx, "-c", "SELECT 1")
		return err == nil, p.postgres.alive()
	})
	if err != nil {
		return err
	}
	_, err = p.psql(ctx, "-v", "ON_ERROR_STOP=1", "-f", filepath.Join(p.source, "schema.sql"))
	return err
}

// postgresUser gives paths to the user that PostgreSQL runs as: it refuses to run as root. It is nil for other users,
// who run it as themselves.
func postgresUser(paths ...string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("find the user that PostgreSQL runs as: %w", err)
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(account.Gid)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if err := os.Chown(path, uid, gid); err != nil {
			return nil, err
		}
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// psql runs the client and returns what it printed, without headers.
func (p *python) psql(ctx context.Context, args ...string) (string, error) {
	return output(ctx, "", "psql", append([]string{"-X", "-q", "-A", "-t", "-d", p.database}, args...)...)
}

func (p *python) startRedis(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	p.redisAddress = fmt.Sprintf("127.0.0.1:%d", port)
	conf := filepath.Join(p.dir, "redis.conf") // not flags: those are for all to see
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\nrequirepass %s\nsave \"\"\nappendonly no\ndir %s\n", port, p.secret, p.dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	if err := p.redis.start("redis", nil, nil, p.dir, "redis-server", conf); err != nil {
		return err
	}
	return poll(ctx, "Redis", 20*time.Millisecond, func() (bool, error) {
		_, err := p.stored(ctx)
		return err == nil, p.redis.alive()
	})
}

func (p *python) startPrograms(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	p.port = port
	socket := func(name string) string { return "ipc://" + filepath.Join(p.dir, name+".sock") }
	env := []string{
		fmt.Sprintf("PEER_PORT=%d", port),
		"PEER_RAW=" + socket("raw"), "PEER_CLASSIFIED=" + socket("classified"), "PEER_ENRICHED=" + socket("enriched"),
		fmt.Sprintf("PEER_REDIS=redis://:%s@%s/0", p.secret, p.redisAddress), "PEER_DATABASE=" + p.database,
		"PYTHONDONTWRITEBYTECODE=1", "C_FORCE_ROOT=1", // Celery as root, like the rest of a benchmark that root runs
	}
	script := func(name string) []string { return []string{python3, filepath.Join(p.source, name+".py")} }
	for name, argv := range map[string][]string{
		// Two workers, as many as the classifiers: on two cores a third only waits.
		"celery": {python3, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "2", "--loglevel", "WARNING",
			"--without-gossip", "--without-mingle", "--without-heartbeat"},
		"route": script("route"), "enrich": script("enrich"), "classify-1": script("classify"), "classify-2": script("classify"), "server": script("server"),
	} {
		if err := p.programs.start(name, env, nil, p.source, argv...); err != nil {
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
	// The database connections of the workers are the last thing to come up.
	return poll(ctx, "Celery", 50*time.Millisecond, func() (bool, error) {
		n, err := p.psql(ctx, "-c", "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
		return n == "2", errors.Join(err, p.programs.alive())
	})
}

func (p *python) stop(context.Context) error {
	// SIGTERM ends all of them at once or soon; SIGINT is PostgreSQL's fast shutdown.
	return errors.Join(p.programs.stop(syscall.SIGTERM), p.redis.stop(syscall.SIGTERM), p.postgres.stop(syscall.SIGINT))
}

// await asks Redis for the counter that the tasks add to when their transaction has committed.
func (p *python) await(ctx context.Context, n uint64) (time.Time, error) {
	var got uint64
	err := poll(ctx, "rows in PostgreSQL", 10*time.Millisecond, func() (bool, error) {
		var err error
		if got, err = p.stored(ctx); err != nil {
			return false, err
		}
		return got >= n, p.programs.alive()
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("%d of %d stored: %w", got, n, err)
	}
	return time.Now(), nil
}

// stored reads the counter over Redis' text protocol.
func (p *python) stored(ctx context.Context) (uint64, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.redisAddress)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nGET stored\r\nQUIT\r\n", p.secret); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(conn)
	var answer []string
	for lines.Scan() {
		answer = append(answer, lines.Text())
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	// "+OK", then "$-1" while nothing is stored or "$5" and the number, then "+OK".
	switch {
	case len(answer) == 3 && answer[0] == "+OK" && answer[1] == "$-1":
		return 0, nil
	case len(answer) == 4 && answer[0] == "+OK":
		return strconv.ParseUint(answer[2], 10, 64)
	default:
		return 0, fmt.Errorf("redis answered %q", strings.Join(answer, " "))
	}
}

func (p *python) each(ctx context.Context, visit func(id, kind []byte)) error {
	cmd := exec.CommandContext(ctx, "psql", "-X", "-q", "-d", p.database, "-c", "COPY (SELECT id, type FROM events) TO STDOUT")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		id, kind, _ := bytes.Cut(lines.Bytes(), []byte("\t"))
		visit(id, kind)
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		return fmt.Errorf("psql: %w: %s", err, said.String())
	}
	return nil
}
