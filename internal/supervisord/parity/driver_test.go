package parity

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// zygote is the Python process that every driver is a copy of.
type zygote struct {
	once sync.Once
	cmd  *exec.Cmd
	dir  string
	err  error
}

var clients zygote // one for the test binary: TestMain ends it

func (z *zygote) start() error {
	z.once.Do(func() { z.err = z.run() })
	return z.err
}

func (z *zygote) run() error {
	dir, err := os.MkdirTemp("/tmp", "hz")
	if err != nil {
		return err
	}
	z.dir = dir
	z.cmd = exec.Command(python, "-W", "ignore", "testdata/driver.py", filepath.Join(dir, "s"))
	z.cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8", "TZ=UTC"}
	z.cmd.Stderr = os.Stderr
	out, err := z.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := z.cmd.Start(); err != nil {
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("supervisor's client does not start: %q, %w", line, err)
	}
	return nil
}

// end is for TestMain, after every test.
func (z *zygote) end() {
	if z.cmd != nil && z.cmd.Process != nil {
		_ = z.cmd.Process.Kill() // it has no other end
		_ = z.cmd.Wait()
	}
	if z.dir != "" {
		_ = os.RemoveAll(z.dir) // nothing of it is worth a failed test
	}
}

// driver is a conversation with a Python process that runs Supervisor's clients.
type driver struct {
	in  *json.Encoder
	out *bufio.Reader
}

func newDriver(t *testing.T) *driver {
	t.Helper()
	if err := clients.start(); err != nil {
		t.Fatalf("start %s: %v (run make deps)", python, err)
	}
	conn, err := net.Dial("unix", filepath.Join(clients.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &driver{in: json.NewEncoder(conn), out: bufio.NewReader(conn)}
}

func (d *driver) ask(t *testing.T, question map[string]any) map[string]any {
	t.Helper()
	if err := d.in.Encode(question); err != nil {
		t.Fatalf("ask the driver: %v (run make deps if supervisor is not installed)", err)
	}
	line, err := d.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("hear the driver: %v (run make deps if supervisor is not installed)", err)
	}
	var a map[string]any
	if err := json.Unmarshal(line, &a); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	return a
}
