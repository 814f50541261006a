package testkit

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestPostgres is a real PostgreSQL server on a unix socket of its own, with a folder that ends with the test.
type TestPostgres struct {
	// URL is for clients, with the password; the same after a restart.
	URL string

	bin        string // folder of initdb and postgres
	data       string
	credential *syscall.Credential // nil: the user's own

	mu  sync.Mutex
	cmd *exec.Cmd // nil when it does not run
	out *tail
}

// Postgres makes a database and serves it. The Debian package postgresql must be installed. It does not wait for the disk,
// which a test does not lose, so that it takes about a second.
func Postgres(t testing.TB) *TestPostgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Fatal("PostgreSQL is not installed: run internal/testkit/deps.sh")
	}
	dir := TempDir(t)
	p := &TestPostgres{bin: filepath.Dir(found[len(found)-1]), data: filepath.Join(dir, "db"), out: &tail{}}
	password := filepath.Join(dir, "password")
	secret := rand.Text()
	if err := os.WriteFile(password, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	p.give(t, dir, password)
	initdb := exec.CommandContext(Context(t), filepath.Join(p.bin, "initdb"), "-D", p.data, "-U", "hozo", "-A", "scram-sha-256",
		"--pwfile", password, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: p.credential}
	initdb.Dir = dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	p.URL = fmt.Sprintf("postgres://hozo:%s@/postgres?host=%s", secret, url.QueryEscape(dir))
	p.Start(t)
	t.Cleanup(func() {
		p.Kill(t)
		if t.Failed() {
			t.Logf("PostgreSQL says:\n%s", p.out)
		}
	})
	return p
}

// give hands paths to the user that PostgreSQL runs as, which is not root.
func (p *TestPostgres) give(t testing.TB, paths ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("find the user that PostgreSQL runs as: %v", err)
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		t.Fatalf("user postgres: %v, %v", uidErr, gidErr)
	}
	p.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, path := range paths {
		if err := os.Chown(path, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// Start starts the server again after Kill and returns when it answers.
func (p *TestPostgres) Start(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	dir := filepath.Dir(p.data)
	argv := []string{"-D", p.data}
	for _, setting := range []string{
		"listen_addresses=", "unix_socket_directories=" + dir, "logging_collector=off", "fsync=off", "max_connections=50",
		"shared_buffers=64MB", "max_wal_size=4GB",
	} {
		argv = append(argv, "-c", setting)
	}
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.credential}
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, p.out, p.out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	p.cmd = cmd
	Eventually(t, func() bool {
		ask := exec.Command(filepath.Join(p.bin, "pg_isready"), "-q", "-h", dir)
		return ask.Run() == nil
	}, "PostgreSQL answers")
}

// Kill ends every process of the server with SIGKILL, as a crash of its machine's system does.
func (p *TestPostgres) Kill(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	p.signalLocked(syscall.SIGKILL)
	_ = p.cmd.Wait() // "signal: killed"
	p.cmd = nil
}

// Freeze stops every process of the server without ending it: connections stay and are not answered. Thaw lets it go on.
func (p *TestPostgres) Freeze(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signalLocked(syscall.SIGSTOP)
}

// Thaw ends a Freeze.
func (p *TestPostgres) Thaw(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signalLocked(syscall.SIGCONT)
}

// signalLocked reaches the postmaster first, so that it makes no more children, and then those. They are in sessions of
// their own.
func (p *TestPostgres) signalLocked(sig syscall.Signal) {
	pid := p.cmd.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	_ = syscall.Kill(pid, sig)
	later, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil && len(later) > 0 {
		children = later // made meanwhile
	}
	for field := range strings.FieldsSeq(string(children)) {
		if child, err := strconv.Atoi(field); err == nil {
			_ = syscall.Kill(child, sig) // it may have ended
		}
	}
}
