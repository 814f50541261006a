package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postgres is a PostgreSQL server of its own on a free loopback port.
type postgres struct {
	children
	secret string
	port   int
}

// start makes a database in dir and serves it.
func (p *postgres) start(ctx context.Context, dir, secret string) error {
	p.children.dir, p.secret = dir, secret
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return errors.New("PostgreSQL is not installed: run bench/setup.sh")
	}
	bin := filepath.Dir(found[len(found)-1])
	data := filepath.Join(dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	password := filepath.Join(data, "password")
	if err := os.WriteFile(password, []byte(secret), 0o600); err != nil {
		return err
	}
	credential, err := postgresUser(data, password)
	if err != nil {
		return err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", filepath.Join(data, "db"), "-U", "bench",
		"-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	initdb.Dir = data
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if p.port, err = freePort(ctx); err != nil {
		return err
	}
	argv := []string{filepath.Join(bin, "postgres"), "-D", filepath.Join(data, "db"), "-p", strconv.Itoa(p.port)}
	for _, setting := range []string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "logging_collector=off",
		// Room for the rows of a round and no waiting for the disk: what a team that wants speed would set.
		"shared_buffers=512MB", "max_wal_size=4GB", "synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0",
	} {
		argv = append(argv, "-c", setting)
	}
	if err := p.children.start("postgres", nil, &syscall.SysProcAttr{Credential: credential}, data, argv...); err != nil {
		return err
	}
	return poll(ctx, "PostgreSQL", 50*time.Millisecond, func() (bool, error) {
		_, err := p.query(ctx, "SELECT 1")
		return err == nil, p.alive()
	})
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
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("uid of postgres: %w", err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("gid of postgres: %w", err)
	}
	for _, path := range paths {
		if err := os.Chown(path, int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// url is the address for libpq. It holds the password: it goes into environments, not into arguments.
func (p *postgres) url() string {
	return fmt.Sprintf("postgresql://bench:%s@127.0.0.1:%d/postgres", p.secret, p.port)
}

// psql is the client, without its start-up file, headers and alignment, stopping at the first error.
func (p *postgres) psql(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "psql", append([]string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"}, args...)...)
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", p.port), "PGUSER=bench", "PGDATABASE=postgres",
		"PGPASSWORD="+p.secret)
	return cmd
}

// query returns what a statement printed.
func (p *postgres) query(ctx context.Context, sql string) (string, error) {
	out, err := p.psql(ctx, "-c", sql).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// rows visits the lines of a COPY … TO STDOUT.
func (p *postgres) rows(ctx context.Context, sql string, visit func(line []byte)) error {
	cmd := p.psql(ctx, "-c", sql)
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
		visit(lines.Bytes())
	}
	_, drained := io.Copy(io.Discard, out) // a line too long for the scanner must not block the client
	if err := errors.Join(lines.Err(), drained, cmd.Wait()); err != nil {
		return fmt.Errorf("psql: %w: %s", err, said.String())
	}
	return nil
}
