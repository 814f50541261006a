//go:build linux

package supervisord_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

var moving = regexp.MustCompile(`pid \d+, uptime \d:\d\d:\d\d|[A-Z][a-z]{2} \d\d \d\d:\d\d [AP]M`)

// TestSupervisorctl drives the daemon with Debian's own client. What it must print was taken down from Debian's daemon.
func TestSupervisorctl(t *testing.T) {
	t.Parallel()
	d := run(t, `
[program:cat]
command=/bin/cat
[program:many]
command=/bin/sleep 1000
process_name=%(program_name)s_%(process_num)02d
numprocs=2
[program:missing]
command=/nonexistent
autostart=false
[program:folder]
command=/tmp
autostart=false
[program:broken]
command=/bin/echo "a
autostart=false
[program:failing]
command=/bin/sh -c "echo out; echo err >&2; exit 3"
startretries=0
[group:pair]
programs=left,right
priority=5
[program:left]
command=/bin/sleep 1000
[program:right]
command=/bin/sleep 1000
startsecs=0
`)
	for _, name := range []string{"cat", "many_00", "many_01", "left", "right"} {
		d.await("success: " + name + " entered RUNNING state")
	}
	d.await("gave up: failing entered FATAL state")
	const running = "   RUNNING   *\n"
	for _, c := range []struct {
		args   string
		want   string
		status int
	}{
		{"status", "broken                           STOPPED   Not started\n" +
			"cat                              RUNNING   *\n" +
			"failing                          FATAL     Exited too quickly (process log may have details)\n" +
			"folder                           STOPPED   Not started\n" +
			"many:many_00                     RUNNING   *\n" +
			"many:many_01                     RUNNING   *\n" +
			"missing                          STOPPED   Not started\n" +
			"pair:left                        RUNNING   *\n" +
			"pair:right                       RUNNING   *\n", 3},
		{"status cat", "cat                           " + running, 0},
		{"status nope", "nope: ERROR (no such process)\n", 4},
		{"status nope:*", "nope: ERROR (no such group)\n", 4},
		{"start cat", "cat: ERROR (already started)\n", 0},
		{"start missing", "missing: ERROR (no such file)\n", 1},
		{"start folder", "folder: ERROR (file is not executable)\n", 1},
		{"start broken", "broken: ERROR (file is not executable)\n", 1},
		{"start failing", "failing: ERROR (spawn error)\n", 7},
		{"start nope", "nope: ERROR (no such process)\n", 1},
		{"stop cat", "cat: stopped\n", 0},
		{"stop cat", "cat: ERROR (not running)\n", 0},
		{"status cat", "cat                              STOPPED   *\n", 3},
		{"restart cat", "cat: ERROR (not running)\ncat: started\n", 0},
		{"restart many:*", "many:many_00: stopped\nmany:many_01: stopped\nmany:many_00: started\nmany:many_01: started\n", 0},
		{"stop many:*", "many:many_00: stopped\nmany:many_01: stopped\n", 0},
		{"start many:many_01", "many:many_01: started\n", 0},
		{"signal CONT cat", "cat: signalled\n", 0},
		{"signal BOGUS cat", "cat: ERROR (bad signal name)\n", 1},
		{"signal HUP missing", "missing: ERROR (not running)\n", 7},
		{"clear cat", "cat: cleared\n", 0},
		{"clear nope", "nope: ERROR (no such process)\n", 1},
		{"tail failing", "out\nout\n\n", 0},
		{"tail failing stderr", "err\nerr\n\n", 0},
		{"tail nope", "nope: ERROR (no such process name)\n", 1},
		{"avail", "broken                           in use    manual    999:999\n" +
			"cat                              in use    auto      999:999\n" +
			"failing                          in use    auto      999:999\n" +
			"folder                           in use    manual    999:999\n" +
			"pair:left                        in use    auto      5:999\n" +
			"many:many_00                     in use    auto      999:999\n" +
			"many:many_01                     in use    auto      999:999\n" +
			"missing                          in use    manual    999:999\n" +
			"pair:right                       in use    auto      5:999\n", 0},
		{"reread", "No config updates to processes\n", 0},
		{"update", "", 0},
		{"add cat", "ERROR: process group already active\n", 0},
		{"add nope", "ERROR: no such process/group: nope\n", 1},
		{"remove cat", "ERROR: process/group still running: cat\n", 1},
		{"remove missing", "missing: removed process group\n", 0},
		{"add missing", "missing: added process group\n", 0},
		{"version", "4.2.5\n", 0},
		{"pid", strconv.Itoa(d.cmd.Process.Pid) + "\n", 0},
		{"shutdown", "Shut down\n", 0},
	} {
		got, status := d.ctl(strings.Fields(c.args)...)
		if got = moving.ReplaceAllString(got, "*"); got != c.want || status != c.status {
			t.Errorf("supervisorctl %s\nprinted %q, status %d\nwant    %q, status %d", c.args, got, status, c.want, c.status)
		}
	}
	testkit.Wait(t, d.ended)
	if _, status := d.ctl("status"); status != 4 {
		t.Errorf("status of a daemon that is gone: %d, want 4", status)
	}
	for _, name := range []string{"rpc", "pid"} {
		if _, err := os.Stat(filepath.Join(d.dir, name)); err == nil {
			t.Errorf("%s was left behind", name)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
