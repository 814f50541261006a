//go:build linux

package supervisord_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestConfigurationIsReadAgain(t *testing.T) {
	t.Parallel()
	const stays, goes = "[program:stays]\ncommand=/bin/cat\n", "[program:goes]\ncommand=/bin/cat\n"
	d := run(t, stays+goes+"[program:changes]\ncommand=/bin/cat\n")
	d.await("success:", 3)
	before := d.pid("stays")
	d.configure(head + stays + "[program:changes]\ncommand=/bin/cat -u\n[program:comes]\ncommand=/bin/cat\n")
	if got, _ := d.ctl("reread"); got != "changes: changed\ncomes: available\ngoes: disappeared\n" {
		t.Errorf("reread printed %q", got)
	}
	if got, _ := d.ctl("update"); got != "goes: stopped\ngoes: removed process group\nchanges: stopped\nchanges: updated process group\ncomes: added process group\n" {
		t.Errorf("update printed %q", got)
	}
	if after := d.pid("stays"); after != before {
		t.Errorf("a program that did not change was restarted: pid %d became %d", before, after)
	}
	d.configure(head + stays + "[program:bad]\ncommand=/bin/cat\nstartretries=two\n")
	if got, status := d.ctl("reread"); !strings.HasPrefix(got, "ERROR: CANT_REREAD: ") || status != 1 {
		t.Errorf("reread of a broken file printed %q, status %d", got, status)
	}
	if got, _ := d.ctl("status", "changes"); !strings.Contains(got, "changes") {
		t.Errorf("a broken file changed something: %q", got)
	}
}

func TestHangUpStartsAgain(t *testing.T) {
	t.Parallel()
	d := run(t, "[program:cat]\ncommand=/bin/cat\n")
	d.await("success: cat")
	before := d.pid("cat")
	d.configure(head + "[program:cat]\ncommand=/bin/cat\n[program:more]\ncommand=/bin/cat\n")
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.await("supervisord started with pid "+strconv.Itoa(d.cmd.Process.Pid), 2)
	d.await("success: more")
	if after := d.pid("cat"); after == before {
		t.Error("cat was not started again")
	}
}

func TestSignalsOfALogMover(t *testing.T) {
	t.Parallel()
	d := run(t, "[program:cat]\ncommand=/bin/cat\nstdout_logfile=%(here)s/cat.log\n")
	d.await("success: cat")
	if err := os.Rename(filepath.Join(d.dir, "cat.log"), filepath.Join(d.dir, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	d.await("supervisord logreopen")
	d.call("supervisor.sendProcessStdin", "cat", "wörld")
	testkit.Eventually(t, func() bool { return d.file("cat.log") == "wörld" }, "the new log holds what came after")
}
