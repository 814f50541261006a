//go:build linux

package supervisord_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSharedSocket(t *testing.T) {
	t.Parallel()
	d := run(t, "[fcgi-program:f]\ncommand=/bin/sleep 1000\nsocket=unix://%(here)s/f.sock\nsocket_mode=0750\nnumprocs=2\nprocess_name=f%(process_num)d\n")
	d.await("success: f0")
	d.await("success: f1")
	path := filepath.Join(d.dir, "f.sock")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the socket is %v (%v), want 0750", info.Mode(), err)
	}
	dial := func() error {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
		return err
	}
	d.ctl("restart", "f:f0")
	if err := dial(); err != nil {
		t.Errorf("with one of two stopped the socket was closed: %v", err)
	}
	if inode0, inode1 := d.socket("f:f0"), d.socket("f:f1"); inode0 != inode1 || !strings.HasPrefix(inode0, "socket:") {
		t.Errorf("fd 0 is %s and %s", inode0, inode1)
	}
	d.ctl("stop", "f:*")
	if dial() == nil {
		t.Error("the socket is open though nobody has it")
	}
}

func (d *daemon) socket(name string) string {
	d.t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", d.pid(name)))
	if err != nil {
		d.t.Fatal(err)
	}
	return link
}
