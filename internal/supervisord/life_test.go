//go:build linux

package supervisord_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

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
