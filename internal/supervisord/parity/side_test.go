package parity

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/internal/cli"
	"github.com/hozo-dev/hozo/internal/supervisord"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// TestMain is also hozo itself: the daemon, and the shim that becomes each of its programs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "supervisord" || os.Args[1] == supervisord.ShimCommand) {
		os.Exit(cli.Main(context.Background(), cli.OS()))
	}
	testkit.EndAtOnce()
	// Scenarios wait far more than they work: two cores carry a dozen daemons.
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	code := m.Run()
	clients.end()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const (
	python     = "/usr/bin/python3"
	supervisor = "/usr/bin/supervisord"
)

// side is one daemon in a folder of its own, and the trace of what it answered.
type side struct {
	t       *testing.T
	dir     string
	daemon  []string // its command line, without the configuration
	cmd     *exec.Cmd
	driver  *driver
	running bool
	trace   []string
	marks   int
}

// header goes before the sections of every scenario.
const header = `[unix_http_server]

file = %(here)s/s.sock
[supervisord]
nodaemon = true
logfile = %(here)s/main.log
pidfile = %(here)s/s.pid
childlogdir = %(here)s
identifier = parity
user = root
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://%(here)s/s.sock
`

// recorder is the section of a listener that keeps the events of some types.
func recorder(events string) string {
	return "[eventlistener:recorder]\ncommand = " + python + " %(here)s/listener.py %(here)s/events\nevents = REMOTE_COMMUNICATION," + events + "\nbuffer_size = 1000\nstderr_logfile = NONE\n"
}

// play tells a story to both daemons and compares their traces. conf goes below header; a conf that has a [supervisord]
// section of its own goes alone.
func play(t *testing.T, conf string, story func(s *side)) {
	t.Helper()
	playAfter(t, func(*side) {}, conf, story)
}

// playAfter is play for a story that needs more files before the daemon starts.
func playAfter(t *testing.T, before func(s *side), conf string, story func(s *side)) {
	t.Helper()
	t.Parallel()
	listener, err := os.ReadFile("testdata/listener.py")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(conf, "[supervisord]") {
		conf = header + conf
	}
	sides := map[string]*side{"theirs": {daemon: []string{supervisor}}, "ours": {daemon: []string{self, "supervisord"}}}
	t.Run("both", func(t *testing.T) {
		for name, s := range sides {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s.t, s.dir = t, testkit.TempDir(t)
				s.write("listener.py", string(listener))
				s.write("supervisord.conf", conf)
				before(s)
				s.driver = newDriver(t)
				s.start()
				defer s.end()
				story(s)
			})
		}
	})
	if t.Failed() {
		for name, s := range sides {
			t.Logf("trace of %s:\n%s", name, strings.Join(s.trace, "\n"))
		}
		return
	}
	theirs, ours := strings.Split(strings.Join(sides["theirs"].trace, "\n"), "\n"), strings.Split(strings.Join(sides["ours"].trace, "\n"), "\n")
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("Supervisor (-) and hozo (+) differ:\n%s", diff)
	}
	if len(theirs) < 2 {
		t.Error("the scenario has no trace")
	}
}

func (s *side) path(name string) string { return filepath.Join(s.dir, name) }

func (s *side) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(text)
}

// environ is what both daemons find in their environment.
func (s *side) environ() []string {
	return []string{"PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8", "TZ=UTC", "PYTHONWARNINGS=ignore", "PARITY=yes", "TMPDIR=" + s.dir}
}

// start runs the daemon and waits until it answers.
func (s *side) start(args ...string) {
	s.t.Helper()
	out, err := os.OpenFile(s.path("stdout"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	line := append(append([]string{}, s.daemon...), "-c", s.path("supervisord.conf"))
	line = append(line, args...)
	s.cmd = exec.Command(line[0], line[1:]...)
	s.cmd.Dir, s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = s.dir, s.environ(), out, out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v (run make deps)", line[0], err)
	}
	s.running = true
	s.eventually(func() bool { return s.answers() || s.gone() }, "the daemon answers, or ends:\n"+s.read("stdout"))
	if s.gone() {
		s.t.Fatalf("the daemon ended:\n%s", s.read("stdout"))
	}
}

func (s *side) answers() bool {
	_, err := os.Stat(s.path("s.sock"))
	return err == nil && s.driver.ask(s.t, map[string]any{"ask": "rpc", "url": s.url(), "method": "supervisor.getState", "params": []any{}})["error"] == nil
}

// gone says whether the daemon has ended without being waited for.
func (s *side) gone() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

func (s *side) url() string { return "unix://" + s.path("s.sock") }

// end stops the daemon, if it runs, and leaves none of its programs behind.
func (s *side) end() {
	if !s.running {
		return
	}
	s.running = false
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may be ending already
	timer := time.AfterFunc(testkit.Patience, func() {
		s.t.Errorf("the daemon did not end after TERM:\n%s", s.read("main.log"))
		_ = s.cmd.Process.Kill() // it is given up
	})
	_ = s.cmd.Wait() // the scenario asks for the status where it matters
	timer.Stop()
}

// eventually asks cond ten times a second until it holds, and gives up after a minute: every question costs Supervisor
// as much as it costs us, and other tests may be running.
func (s *side) eventually(cond func() bool, msg string) {
	s.t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			s.t.Fatalf("still not so after a minute: %s\n%s", msg, s.read("main.log"))
		}
		<-ticker.C
	}
}

// wait waits until the daemon ends by itself, and notes its status.
func (s *side) wait() {
	timer := time.AfterFunc(testkit.Patience, func() {
		s.t.Errorf("the daemon does not end:\n%s", s.read("main.log"))
		_ = s.cmd.Process.Kill() // it is given up
	})
	_ = s.cmd.Wait() // its status is noted
	timer.Stop()
	s.running = false
	s.note("daemon ended with %d", s.cmd.ProcessState.ExitCode())
}

// signal sends a signal to the daemon.
func (s *side) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) exists(name string) bool {
	_, err := os.Stat(s.path(name))
	return err == nil
}

// killLeft ends what the daemon left of this scenario, which Supervisor does when only a leader is told to stop: each
// such process has the scenario's own folder in its command line.
func (s *side) killLeft() {
	s.t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range found {
		text, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(text), "sh\x00-c\x00") || !strings.Contains(string(text), s.dir+"/") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(name, "/proc/%d/", &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
	}
}

func (s *side) rename(from, to string) {
	s.t.Helper()
	if err := os.Rename(s.path(from), s.path(to)); err != nil {
		s.t.Fatal(err)
	}
}
