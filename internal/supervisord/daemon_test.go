//go:build linux

package supervisord_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
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

// TestRetriesAreToldAndEnd: startretries=2 are three starts, one and two seconds apart.
func TestRetriesAreToldAndEnd(t *testing.T) {
	t.Parallel()
	d := run(t, listener(t, "all", "PROCESS_STATE")+"[program:failing]\ncommand=/bin/sh -c \"exit 3\"\nstartretries=2\n")
	want := strings.Join([]string{
		"PROCESS_STATE_STARTING processname:failing groupname:failing from_state:STOPPED tries:0",
		"PROCESS_STATE_BACKOFF processname:failing groupname:failing from_state:STARTING tries:1",
		"PROCESS_STATE_STARTING processname:failing groupname:failing from_state:BACKOFF tries:1",
		"PROCESS_STATE_BACKOFF processname:failing groupname:failing from_state:STARTING tries:2",
		"PROCESS_STATE_STARTING processname:failing groupname:failing from_state:BACKOFF tries:2",
		"PROCESS_STATE_BACKOFF processname:failing groupname:failing from_state:STARTING tries:3",
		"PROCESS_STATE_FATAL processname:failing groupname:failing from_state:BACKOFF",
		"",
	}, "\n")
	var got string
	testkit.Eventually(t, func() bool {
		got = regexp.MustCompile(`(?m)^.*processname:all.*\n`).ReplaceAllString(d.file("all.events"), "")
		return strings.Contains(got, "FATAL")
	}, "FATAL was told")
	if got != want {
		t.Errorf("told\n%swant\n%s", got, want)
	}
}

func TestExitsAreJudged(t *testing.T) {
	t.Parallel()
	program := func(name, exit, more string) string {
		return fmt.Sprintf("[program:%s]\ncommand=/bin/sh -c \"%s\"\nstartsecs=0\nautorestart=%s\n", name, exit, more)
	}
	d := run(t, program("zero", "exit 0", "unexpected")+program("listed", "exit 5", "unexpected\nexitcodes=2,5")+
		program("never", "exit 1", "false")+program("killed", "kill -9 $$", "false"))
	d.await("exited: zero (exit status 0; expected)")
	d.await("exited: listed (exit status 5; expected)")
	d.await("exited: never (exit status 1; not expected)")
	d.await("exited: killed (terminated by SIGKILL; not expected)")
	if got := d.call("supervisor.getProcessInfo", "killed"); !strings.Contains(got, "<int>-1</int>") || !strings.Contains(got, "Bad exit code -1") {
		t.Errorf("a death by signal reads %s", got)
	}
	if out, status := d.ctl("status"); strings.Count(out, "EXITED") != 4 || status != 3 {
		t.Errorf("status printed %q, %d", out, status)
	}
}

// TestEndlessRestartsLeaveTheMachineAlone: a program that ends at once and always restarts.
func TestEndlessRestartsLeaveTheMachineAlone(t *testing.T) {
	t.Parallel()
	d := run(t, "[program:spin]\ncommand=/bin/true\nstartsecs=0\nautorestart=true\n[program:clock]\ncommand=/bin/sleep 1000\nstartsecs=3\n")
	d.await("success: clock") // three seconds
	if n := strings.Count(d.text(), "spawned: 'spin'"); n < 6 || n > 12 {
		t.Errorf("started %d times in 3 s", n)
	}
	if out, _ := d.ctl("stop", "spin"); out != "spin: stopped\n" {
		t.Errorf("stop printed %q", out)
	}
	if out, _ := d.ctl("status", "spin"); !strings.Contains(out, "STOPPED") {
		t.Errorf("after the stop it is %q", out)
	}
}

func TestStopsEscalate(t *testing.T) {
	t.Parallel()
	d := run(t, `
[program:deaf]
command=/bin/sh -c "trap '' TERM; echo ready; while :; do /bin/sleep 0.05; done"
stopwaitsecs=1
[program:tree]
command=/bin/sh -c "/bin/sleep 1000 & echo $!; wait"
stopasgroup=true
stdout_logfile=%(here)s/tree.log
`)
	d.await("success: deaf")
	d.await("success: tree")
	if out, _ := d.ctl("stop", "deaf"); out != "deaf: stopped\n" {
		t.Errorf("stop printed %q", out)
	}
	d.await("killing 'deaf' (")
	d.await("stopped: deaf (terminated by SIGKILL)")
	child, err := strconv.Atoi(strings.TrimSpace(d.file("tree.log")))
	if err != nil {
		t.Fatal(err)
	}
	d.ctl("stop", "tree")
	testkit.Eventually(t, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, "the whole group was stopped")
}

func TestWhatCannotBeSpawnedSaysWhy(t *testing.T) {
	t.Parallel()
	config := `
[program:nodir]
command=/bin/echo hi
directory=/nonexistent
startretries=0
[program:script]
command=%(here)s/script
startretries=0
[program:fine]
command=/bin/sh -c "umask; pwd; echo $A $SUPERVISOR_PROCESS_NAME $SUPERVISOR_GROUP_NAME $SUPERVISOR_ENABLED"
umask=077
directory=/usr
environment=A="b c"
startsecs=0
autorestart=false
stdout_logfile=%(here)s/fine.log
`
	d := prepare(t, head+config)
	if err := os.WriteFile(filepath.Join(d.dir, "script"), []byte("no shebang\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.await("exited: nodir (exit status 127; not expected)")
	d.await("exited: script (exit status 127; not expected)")
	d.await("exited: fine (exit status 0; expected)")
	const more = "supervisor: child process was not spawned\n\n"
	if got, _ := d.ctl("tail", "nodir", "stderr"); got != "supervisor: couldn't chdir to /nonexistent: ENOENT\n"+more {
		t.Errorf("a missing folder reads %q", got)
	}
	if got, _ := d.ctl("tail", "script", "stderr"); got != "supervisor: couldn't exec "+d.dir+"/script: ENOEXEC\n"+more {
		t.Errorf("a script without an interpreter reads %q", got)
	}
	if got, want := d.file("fine.log"), "0077\n/usr\nb c fine fine 1\n"; got != want {
		t.Errorf("the child saw %q, want %q", got, want)
	}
}

func TestLastWordsAreLogged(t *testing.T) {
	t.Parallel()
	// The sleeper holds the pipe open when the program ends: what it had written counts, and nobody waits for more.
	d := run(t, `
[program:loud]
command=/bin/sh -c "/bin/sleep 20 & /usr/bin/seq 1 200000; echo $! >%(here)s/sleeper"
startsecs=0
autorestart=false
stdout_logfile=%(here)s/loud.log
stdout_logfile_maxbytes=0
`)
	d.await("exited: loud (exit status 0; expected)")
	lines := strings.Split(d.file("loud.log"), "\n")
	if len(lines) != 200001 || lines[199999] != "200000" {
		t.Errorf("%d lines, the last %q", len(lines), lines[max(len(lines)-2, 0)])
	}
	sleeper, err := strconv.Atoi(strings.TrimSpace(d.file("sleeper")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(sleeper, syscall.SIGKILL); err != nil {
		t.Errorf("the sleeper was gone: %v", err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	d := run(t, `
[program:parent]
command=/bin/sh -c "for i in 1 2 3 4 5 6 7 8 9 10; do (/bin/sh -c 'exit 7' &); done; exit 4"
startsecs=0
autorestart=false
`, orphansVar+"=1")
	d.await("exited: parent (exit status 4; not expected)")
	d.await("reaped unknown pid", 10)
	if n := strings.Count(d.text(), "(exit status 7)"); n != 10 {
		t.Errorf("%d orphans had the status 7, want 10", n)
	}
}

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

// TestFollowerThatLeavesIsLetGo sends what supervisorctl sends, a spare line included, and goes while the log is silent.
func TestFollowerThatLeavesIsLetGo(t *testing.T) {
	t.Parallel()
	d := run(t, "[program:cat]\ncommand=/bin/cat\nstdout_logfile=%(here)s/cat.log\n")
	d.await("success: cat")
	d.call("supervisor.sendProcessStdin", "cat", "first\n")
	testkit.Eventually(t, func() bool { return d.file("cat.log") == "first\n" }, "cat has written")
	conn, err := net.Dial("unix", filepath.Join(d.dir, "rpc"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "GET /logtail/cat HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	awaitLine := func(want string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == want {
				return
			}
		}
	}
	awaitLine("first\n")
	followed := d.opened("cat.log")
	d.call("supervisor.sendProcessStdin", "cat", "second\n")
	awaitLine("second\n")
	conn.Close()
	testkit.Eventually(t, func() bool { return d.opened("cat.log") < followed }, "the follower has closed the log")
}

// opened is how often the daemon has a file of its folder open.
func (d *daemon) opened(name string) int {
	fds := fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		d.t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if link, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && link == filepath.Join(d.dir, name) {
			n++
		}
	}
	return n
}

func TestBrowsersAreKeptApart(t *testing.T) {
	t.Parallel()
	d := run(t, "[program:<b>&]\ncommand=/bin/cat\n[program:cat]\ncommand=/bin/cat\n")
	d.await("success: cat")
	if status, page := d.get("/"); status != http.StatusOK || strings.Contains(page, "<b>&") || !strings.Contains(page, "&lt;b&gt;&amp;") {
		t.Errorf("status %d; the page holds a name as it is:\n%s", status, page)
	}
	if status, _ := d.get("/?action=stop&processname=cat", "Sec-Fetch-Site", "cross-site"); status != http.StatusForbidden {
		t.Errorf("a link of another site stopped cat: %d", status)
	}
	if status, _ := d.post(callXML("supervisor.shutdown"), "Sec-Fetch-Site", "cross-site"); status != http.StatusForbidden {
		t.Errorf("a page of another site ended the daemon: %d", status)
	}
	if status, where := d.get("/index.html?action=stop&processname=cat"); status != http.StatusSeeOther || where != "?message=Process+cat+stopped" {
		t.Errorf("stop: %d to %q", status, where)
	}
	if status, where := d.get("/index.html?action=start&processname=nope"); where != "?message=No+such+process+named+nope" {
		t.Errorf("start of nothing: %d to %q", status, where)
	}
	if status, _ := d.get("/index.html?action=explode&processname=cat"); status != http.StatusBadRequest {
		t.Errorf("an unknown action: %d", status)
	}
	for path, want := range map[string]int{"/nope": 404, "/RPC2": 400, "/logtail/nope": 404, "/logtail/cat/nope": 404, "/tail.html?processname=cat": 200} {
		if status, _ := d.get(path); status != want {
			t.Errorf("GET %s: %d, want %d", path, status, want)
		}
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	d := run(t, "")
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{"abc", 400, ""},
		{"", 400, ""},
		{"<methodCall></methodCall>", 400, ""},
		{callXML("nope"), 200, "UNKNOWN_METHOD"},
		{callXML("supervisor._update", "x"), 200, "UNKNOWN_METHOD"},
		{callXML("supervisor.getPID", "x"), 200, "INCORRECT_PARAMETERS"},
		{callXML("supervisor.startProcess"), 200, "INCORRECT_PARAMETERS"},
		{callXML("supervisor.startProcess", "nope"), 200, "BAD_NAME: nope"},
		{callXML("system.methodHelp", "nope"), 200, "SIGNATURE_UNSUPPORTED"},
		{
			"<methodCall><methodName>system.multicall</methodName><params><param><value><array><data><value><struct><member>" +
				"<name>methodName</name><value>system.multicall</value></member></struct></value></data></array></value></param></params></methodCall>",
			200, "Recursive system.multicall forbidden",
		},
	} {
		status, body := d.post(c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%.60q: %d %q, want %d %q", c.body, status, body, c.status, c.want)
		}
	}
	if status, _ := d.post("<methodCall><methodName>" + strings.Repeat("x", 17<<20)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of 17 MiB: %d", status)
	}
}

func TestOneDaemonASocket(t *testing.T) {
	t.Parallel()
	d := run(t, "")
	if info, err := os.Stat(filepath.Join(d.dir, "rpc")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket is %v (%v), want 0700", info.Mode(), err)
	}
	second := testkit.Command(t, "daemon")
	second.Args = append(second.Args, d.config())
	out, err := second.CombinedOutput()
	if err == nil || second.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "Another program is already listening") {
		t.Errorf("a second daemon: %v, %s", second.ProcessState, out)
	}
	if status, _ := d.get("/"); status != http.StatusOK {
		t.Errorf("the first no longer answers: %d", status)
	}
}

func TestStaleSocketIsTaken(t *testing.T) {
	t.Parallel()
	d := prepare(t, head)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d.dir, "rpc")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	d.start()
	d.await("Unlinking stale socket")
	d.await("supervisord started with pid")
	if status, _ := d.get("/"); status != http.StatusOK {
		t.Errorf("it does not answer: %d", status)
	}
}

func TestBackground(t *testing.T) {
	t.Parallel()
	d := prepare(t, strings.Replace(head, "nodaemon=true\n", "directory=/usr\numask=027\n", 1)+"[program:cat]\ncommand=/bin/cat\n")
	if out, err := d.cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(d.file("pid")))
	if err != nil {
		// The launcher returns when the sockets are open, which is before the pid file is there.
		testkit.Eventually(t, func() bool { return d.file("pid") != "" }, "the pid file is there")
		if pid, err = strconv.Atoi(strings.TrimSpace(d.file("pid"))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // most often it is gone already
	if stat := strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/stat", pid))); stat[5] != strconv.Itoa(pid) {
		t.Errorf("it leads no session: %v", stat[:8])
	}
	for link, want := range map[string]string{"cwd": "/usr", "fd/0": "/dev/null", "fd/1": "/dev/null", "fd/2": "/dev/null"} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link)); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", link, got, err, want)
		}
	}
	if out, status := d.ctl("shutdown"); out != "Shut down\n" || status != 0 {
		t.Errorf("shutdown printed %q, %d", out, status)
	}
	testkit.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, "the daemon has ended")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// legal is every move of the machine.
var legal = map[string]string{
	"STOPPED": "STARTING", "STARTING": "RUNNING BACKOFF STOPPING", "RUNNING": "EXITED STOPPING",
	"BACKOFF": "STARTING FATAL STOPPED", "STOPPING": "STOPPED", "EXITED": "STARTING STOPPED", "FATAL": "STARTING",
}

// TestRandomOperationsKeepToTheMachine starts, stops, kills and signals programs of every kind at random; the states that
// are told must follow one another, and nothing may be left at the end.
func TestRandomOperationsKeepToTheMachine(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := run(t, listener(t, "all", "PROCESS_STATE")+`
[program:calm]
command=/bin/cat
startsecs=0
autorestart=true
[program:brief]
command=/bin/sh -c "exit 1"
startretries=1
[program:deaf]
command=/bin/sh -c "trap '' TERM; while :; do /bin/sleep 0.02; done"
startsecs=0
stopwaitsecs=0
[program:quick]
command=/bin/true
startsecs=0
autorestart=true
`)
	names := []string{"calm", "brief", "deaf", "quick"}
	for range 400 {
		name := names[random.IntN(len(names))]
		switch random.IntN(4) {
		case 0:
			d.post(fmt.Sprintf("<methodCall><methodName>supervisor.startProcess</methodName><params><param><value>%s</value></param>"+
				"<param><value><boolean>0</boolean></value></param></params></methodCall>", name))
		case 1:
			d.post(fmt.Sprintf("<methodCall><methodName>supervisor.stopProcess</methodName><params><param><value>%s</value></param>"+
				"<param><value><boolean>%d</boolean></value></param></params></methodCall>", name, random.IntN(2)))
		case 2:
			d.call("supervisor.signalProcess", name, "KILL")
		case 3:
			d.call("supervisor.getAllProcessInfo")
		}
	}
	d.call("supervisor.stopAllProcesses")
	testkit.Eventually(t, func() bool {
		return !strings.Contains(d.call("supervisor.getAllProcessInfo"), "<string>STOPPING</string>")
	}, "all have stopped")
	d.ctl("start", "all") // a mark for the end of the events
	d.ctl("shutdown")
	testkit.Wait(t, d.ended)
	events := regexp.MustCompile(`PROCESS_STATE_(\w+) processname:(\w+) \S+ from_state:(\w+)`).FindAllStringSubmatch(d.file("all.events"), -1)
	if len(events) < 100 {
		t.Errorf("only %d events", len(events))
	}
	state := map[string]string{}
	for i, e := range events {
		to, name, from := e[1], e[2], e[3]
		if was, known := state[name]; known && was != from {
			t.Fatalf("event %d: %s left %s, but was %s", i, name, from, was)
		}
		if !strings.Contains(legal[from], to) {
			t.Fatalf("event %d: %s went from %s to %s", i, name, from, to)
		}
		state[name] = to
	}
}

func TestServerAsksForThePassword(t *testing.T) {
	t.Parallel()
	const config = `[inet_http_server]
port=0.0.0.0:0
[supervisord]
nodaemon=true
logfile=%(here)s/main.log
pidfile=%(here)s/pid
childlogdir=%(here)s
[unix_http_server]
file=%(here)s/rpc
chmod=0770
username=me
password={SHA}82ab876d1387bfafe46cc1c8a2ef074eae50cb1d
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%(here)s/rpc
username=me
password=thepassword
[program:cat]
command=/bin/cat
`
	d := prepare(t, strings.Replace(config, "0.0.0.0:0", "127.0.0.1:"+freePort(t), 1))
	d.start()
	d.await("success: cat")
	if out, status := d.ctl("status", "cat"); status != 0 {
		t.Errorf("with the password: %q, %d", out, status)
	}
	if out, status := d.ctl("-p", "wrong", "status"); status == 0 || !strings.Contains(out, "Server requires authentication") {
		t.Errorf("with a wrong one: %q, %d", out, status)
	}
	if info, err := os.Stat(filepath.Join(d.dir, "rpc")); err != nil || info.Mode().Perm() != 0o770 {
		t.Errorf("the socket is %v (%v), want 0770", info.Mode(), err)
	}
	for _, path := range []string{"/", "/RPC2", "/logtail/cat", "/mainlogtail", "/tail.html", "/nope"} {
		if status, _ := d.get(path); status != http.StatusUnauthorized {
			t.Errorf("GET %s without a password: %d", path, status)
		}
	}
	if !strings.Contains(d.text(), "Server 'inet_http_server' running without any HTTP authentication checking") {
		t.Error("nothing was said of the server without a password")
	}
	if strings.Contains(d.text(), "can be reached from other machines") {
		t.Error("a server on loopback was called open to others")
	}
}

// freePort is a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
