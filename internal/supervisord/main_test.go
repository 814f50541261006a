//go:build linux

package supervisord_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/supervisord"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// orphansVar makes a daemon the parent of orphans, as PID 1 of a container is.
const orphansVar = "SUPERVISORD_TEST_ORPHANS"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == supervisord.ShimCommand {
		os.Exit(supervisord.ExecShim(os.Args[2:], os.Environ()))
	}
	testkit.Main(m, testkit.Child("daemon", runDaemon), testkit.Child("listener", runListener))
}

// runDaemon is supervisord -c FILE; it must leave no goroutine behind.
func runDaemon() {
	if os.Getenv(orphansVar) != "" {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	err := supervisord.Main(context.Background(), supervisord.Options{File: os.Args[1], Stderr: os.Stderr})
	if err != nil {
		fmt.Fprint(os.Stderr, fault.Render(err))
		os.Exit(fault.ExitCode(err))
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
		os.Exit(70)
	}
}

// runListener is an event listener that accepts everything and appends it to the file that it is told of.
func runListener() {
	file, err := os.OpenFile(os.Args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	in := bufio.NewReader(os.Stdin)
	for {
		fmt.Print("READY\n")
		head, err := in.ReadString('\n')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(regexp.MustCompile(`len:(\d+)`).FindStringSubmatch(head)[1])
		if err != nil {
			os.Exit(1)
		}
		var payload strings.Builder
		for range n {
			r, _, err := in.ReadRune()
			if err != nil {
				os.Exit(1)
			}
			payload.WriteRune(r)
		}
		name := regexp.MustCompile(`eventname:(\S+)`).FindStringSubmatch(head)[1]
		if _, err := fmt.Fprintf(file, "%s %s\n", name, strings.ReplaceAll(payload.String(), "\n", "|")); err != nil {
			os.Exit(1)
		}
		fmt.Print("RESULT 2\nOK")
	}
}

// daemon is supervisord in a process of its own, for it waits for every child of its process.
type daemon struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and was waited for

	mu    sync.Mutex
	log   strings.Builder
	grown chan struct{} // closed and made anew at every line of its log
}

// head begins every configuration: %(here)s is the folder of the test.
const head = `[unix_http_server]
file=%(here)s/rpc
[supervisord]
nodaemon=true
logfile=%(here)s/main.log
pidfile=%(here)s/pid
childlogdir=%(here)s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%(here)s/rpc
`

// run starts a daemon and waits until it answers. At the end of the test it is asked to end, and must leave nothing.
func run(t *testing.T, config string, env ...string) *daemon {
	t.Helper()
	d := prepare(t, head+config, env...)
	d.start()
	d.await("supervisord started with pid")
	return d
}

func prepare(t *testing.T, config string, env ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: testkit.TempDir(t), ended: make(chan struct{}), grown: make(chan struct{})}
	d.configure(config)
	d.cmd = testkit.Command(t, "daemon", env...)
	d.cmd.Args = append(d.cmd.Args, d.config())
	d.cmd.Dir = d.dir
	return d
}

func (d *daemon) config() string { return filepath.Join(d.dir, "supervisord.conf") }

func (d *daemon) configure(text string) {
	d.t.Helper()
	if err := os.WriteFile(d.config(), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) start() {
	d.t.Helper()
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd.Stderr = d.cmd.Stdout
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		d.read(out)
		_ = d.cmd.Wait() // the state tells
		close(d.ended)
	})
	d.t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM) // most often it has ended already
		testkit.Wait(d.t, d.ended)
		wg.Wait()
		if code := d.cmd.ProcessState.ExitCode(); code != 0 && !d.t.Failed() {
			d.t.Errorf("the daemon ended with %s", d.cmd.ProcessState)
		}
		if d.t.Failed() {
			d.t.Logf("log of the daemon:\n%s", d.text())
		}
	})
}

func (d *daemon) read(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		d.mu.Lock()
		d.log.WriteString(line)
		close(d.grown)
		d.grown = make(chan struct{})
		d.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (d *daemon) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// await waits until the log holds a text n times, once unless n is given.
func (d *daemon) await(text string, n ...int) {
	d.t.Helper()
	want := 1
	if len(n) > 0 {
		want = n[0]
	}
	for {
		d.mu.Lock()
		found, grown := strings.Count(d.log.String(), text), d.grown
		d.mu.Unlock()
		if found >= want {
			return
		}
		testkit.Wait(d.t, grown)
	}
}

// ctl runs the real supervisorctl; it gives what it printed and its exit status.
func (d *daemon) ctl(args ...string) (string, int) {
	d.t.Helper()
	cmd := exec.CommandContext(testkit.Context(d.t), "supervisorctl", append([]string{"-c", d.config()}, args...)...)
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		d.t.Fatalf("supervisorctl: %v (it comes with Debian's package supervisor)", err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// web is a client of the daemon's socket.
func (d *daemon) web() *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.dir, "rpc"))
	}}
	d.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// post sends a body to /RPC2 and gives the status and the answer.
func (d *daemon) post(body string, header ...string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(testkit.Context(d.t), http.MethodPost, "http://localhost/RPC2", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return d.do(req)
}

func (d *daemon) get(path string, header ...string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(testkit.Context(d.t), http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return d.do(req)
}

func (d *daemon) do(req *http.Request) (int, string) {
	d.t.Helper()
	res, err := d.web().Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		d.t.Fatal(err)
	}
	if location := res.Header.Get("Location"); location != "" {
		return res.StatusCode, location
	}
	return res.StatusCode, b.String()
}

// call makes an XML-RPC call with string parameters and gives the body of the answer.
func (d *daemon) call(method string, params ...string) string {
	d.t.Helper()
	status, body := d.post(callXML(method, params...))
	if status != http.StatusOK {
		d.t.Fatalf("%s: status %d", method, status)
	}
	return body
}

func callXML(method string, params ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<methodCall><methodName>%s</methodName><params>", method)
	for _, p := range params {
		fmt.Fprintf(&b, "<param><value><string>%s</string></value></param>", p)
	}
	return b.String() + "</params></methodCall>"
}

// pid is the process id of a program.
func (d *daemon) pid(name string) int {
	d.t.Helper()
	out, _ := d.ctl("pid", name)
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		d.t.Fatalf("pid of %s: %q", name, out)
	}
	return pid
}

// file reads a file of the daemon's folder, "" if it is not there.
func (d *daemon) file(name string) string {
	text, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
	return string(text)
}

// listener is the section of a listener that appends events to a file of the daemon's folder.
func listener(t *testing.T, name, events string) string {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[eventlistener:%s]\ncommand=%s %%(here)s/%s.events\nevents=%s\nbuffer_size=1000\nenvironment=%s\n",
		name, self, name, events, strings.Replace(testkit.ChildEnv("listener"), "=", `="`, 1)+`"`)
}
