//go:build linux

package supervisord_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

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
