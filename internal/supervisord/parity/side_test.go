package parity

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

// note adds to the trace, without what differs from run to run.
func (s *side) note(format string, args ...any) {
	s.trace = append(s.trace, s.normal(fmt.Sprintf(format, args...)))
}

var varying = []struct {
	match *regexp.Regexp
	to    string
}{
	{regexp.MustCompile(`pid:\d+`), "pid:N"},
	{regexp.MustCompile(`pid \d+`), "pid N"},
	{regexp.MustCompile(`uptime (\d+ days?, )?\d+:\d\d:\d\d`), "uptime T"},
	{regexp.MustCompile(`[A-Z][a-z][a-z] \d\d \d\d:\d\d [AP]M`), "DATE"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}`), "STAMP"},
	{regexp.MustCompile(`'[^']*' \(\d+\) with`), "P with"},
	{regexp.MustCompile(`when:\d+`), "when:T"},
	{regexp.MustCompile(`(---parity-)\w+\.log`), "${1}X.log"},
	// Supervisor 4.2 leaves it out, later ones give a class that their own marshaller refuses.
	{regexp.MustCompile(`"autorestart":\w+,`), ""},
	{regexp.MustCompile(`"(pid|start|stop|now)":[1-9]\d*`), `"$1":N`},
}

// place is where in a file a warning comes from, which ours says and theirs does not.
var place = regexp.MustCompile(` \(\S+:\d+\)$`)

func (s *side) normal(text string) string {
	text = strings.ReplaceAll(text, s.dir, "$DIR")
	for _, v := range varying {
		text = v.match.ReplaceAllString(text, v.to)
	}
	return text
}

// ctl runs supervisorctl and notes what it says and its exit status.
func (s *side) ctl(args ...string) {
	s.t.Helper()
	a := s.driver.ask(s.t, map[string]any{"ask": "ctl", "args": append([]string{"-c", s.path("supervisord.conf")}, args...)})
	output, _ := a["output"].(string)
	s.note("$ supervisorctl %s\n%s=> %v", strings.Join(args, " "), sameOrder(output), a["code"])
}

// sameOrder sorts neighbours that say the same of different processes: a daemon tells of them as they get there, and two
// that stop at once get there in either order.
func sameOrder(output string) string {
	lines := strings.SplitAfter(output, "\n")
	said := func(line string) string {
		_, what, _ := strings.Cut(line, ": ")
		return what
	}
	for i := 0; i < len(lines); {
		j := i + 1
		for j < len(lines) && said(lines[i]) != "" && said(lines[j]) == said(lines[i]) {
			j++
		}
		slices.Sort(lines[i:j])
		i = j
	}
	return strings.Join(lines, "")
}

// call makes a call of XML-RPC and notes its answer.
func (s *side) call(method string, params ...any) {
	s.t.Helper()
	answer := s.quiet(method, params...)
	if list, ok := answer["result"].([]any); ok && strings.HasSuffix(method, "Processes") {
		// What became of each, in the order in which they got there.
		slices.SortStableFunc(list, func(a, b any) int { return strings.Compare(compact(a), compact(b)) })
	}
	s.note("%s%s -> %s", method, compact(params), compact(answer))
}

// quiet makes a call without noting it.
func (s *side) quiet(method string, params ...any) map[string]any {
	s.t.Helper()
	if params == nil {
		params = []any{}
	}
	return s.driver.ask(s.t, map[string]any{"ask": "rpc", "url": s.url(), "method": method, "params": params})
}

func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// until waits until a process is in a state, or one of several.
func (s *side) until(name string, states ...string) {
	s.t.Helper()
	last := ""
	s.eventually(func() bool {
		info, ok := s.quiet("supervisor.getProcessInfo", name)["result"].(map[string]any)
		if !ok {
			return false
		}
		last, _ = info["statename"].(string)
		return slices.Contains(states, last)
	}, name+" is "+strings.Join(states, " or ")+" ("+s.dir+")")
}

// untilFile waits until a file holds a text.
func (s *side) untilFile(name, text string) {
	s.t.Helper()
	s.eventually(func() bool { return strings.Contains(s.read(name), text) }, name+" holds "+text+" in "+s.dir)
}

// raw sends bytes to the server and returns what came back, up to a text that ends it or to the end.
func (s *side) raw(text, wait string) string {
	s.t.Helper()
	a := s.driver.ask(s.t, map[string]any{"ask": "raw", "path": s.path("s.sock"), "text": text, "wait": wait})
	out, _ := a["output"].(string)
	return out
}

// recorded waits until the recorder has been told of all that has happened: events are told in order.
func (s *side) recorded() {
	s.t.Helper()
	s.until("recorder", "RUNNING")
	s.marks++
	mark := fmt.Sprintf("mark-%d.", s.marks)
	s.quiet("supervisor.sendRemoteCommEvent", mark, "")
	s.untilFile("events", mark)
}

// events notes what a listener recorded, process by process: daemons may tell of two processes in either order.
func (s *side) events(file string, of ...string) {
	s.t.Helper()
	if file == "events" {
		s.recorded()
	}
	for _, name := range of {
		for line := range strings.Lines(s.read(file)) {
			if strings.Contains(line, "processname:"+name+" ") || strings.Contains(line, "groupname:"+name+`\n`) {
				_, event, _ := strings.Cut(strings.TrimSpace(line), " ")
				s.note("event %s", event)
			}
		}
	}
}

// log notes the lines of the main log that contain a text, text after text: daemons may log of two processes in either
// order.
func (s *side) log(texts ...string) {
	for _, text := range texts {
		for line := range strings.Lines(s.read("main.log")) {
			if strings.Contains(line, text) {
				s.note("log %s", place.ReplaceAllString(strings.TrimSpace(line), ""))
			}
		}
	}
}

func (s *side) exists(name string) bool {
	_, err := os.Stat(s.path(name))
	return err == nil
}

func (s *side) untilExists(name string) {
	s.t.Helper()
	s.eventually(func() bool { return s.exists(name) }, name+" exists in "+s.dir)
}

// stderrOf is what the AUTO log of a process's stderr holds.
func (s *side) stderrOf(process string) string {
	s.t.Helper()
	found, err := filepath.Glob(s.path(process + "-stderr---*.log"))
	if err != nil || len(found) == 0 {
		s.t.Errorf("%s has no stderr log: %v", process, err)
		return ""
	}
	return s.read(filepath.Base(found[0]))
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

// record notes what one listener was told, in its order.
func (s *side) record(file string) {
	s.t.Helper()
	for line := range strings.Lines(s.read(file)) {
		_, event, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.note("%s was told %s", file, event)
	}
}
