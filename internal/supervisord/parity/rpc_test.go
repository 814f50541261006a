package parity

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// http notes the answer to a request as its status and, if all is well, its body.
func (s *side) http(request, wait string) {
	s.t.Helper()
	head, body, _ := strings.Cut(s.raw(request, wait), "\r\n\r\n")
	status, _, _ := strings.Cut(head, "\r\n")
	if !strings.Contains(status, "200") {
		body = "" // a page of words for people
	}
	s.note("%q -> %s | %s", strings.SplitN(request, "\r\n", 2)[0], strings.ToLower(status), strings.TrimSpace(body))
}

// follow notes what a log that is being followed gives until it holds a text.
func (s *side) follow(path, until string) {
	s.t.Helper()
	out := s.raw("GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n", until)
	status, _, _ := strings.Cut(out, "\r\n")
	headers := strings.ToLower(out)
	s.note("GET %s -> %s, chunked %v, holds %q: %v", path, status, strings.Contains(headers, "transfer-encoding: chunked"), until, strings.Contains(out, until))
	if strings.HasPrefix(path, "/logtail") {
		s.note("not to be buffered: %v", strings.Contains(headers, "x-accel-buffering: no"))
	}
}

func post(body, headers string) string {
	return fmt.Sprintf("POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: text/xml\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)
}

func methodCall(name, params string) string {
	return "<?xml version='1.0'?><methodCall><methodName>" + name + "</methodName><params>" + params + "</params></methodCall>"
}

func TestOddCalls(t *testing.T) {
	play(t, "[program:a]\ncommand = "+sleeper+"\n[program:b]\ncommand = "+sleeper+"\nautostart = false\n", func(s *side) {
		s.until("a", "RUNNING")
		s.call("system.listMethods")
		s.call("system.methodHelp", "supervisor.nothing")
		s.call("system.methodSignature", "supervisor.getState")
		s.call("system.methodSignature", "supervisor.startProcess")
		s.call("system.methodSignature", "supervisor.nothing")
		s.call("supervisor.nothing")
		s.call("nothing")
		s.call("supervisor.getProcessInfo")
		s.call("supervisor.getProcessInfo", "a", "b")
		s.call("supervisor.getProcessInfo", "nobody")
		s.call("supervisor.getProcessInfo", "a:b")
		s.call("supervisor.getState")
		s.call("supervisor.getAPIVersion")
		s.call("supervisor.getVersion")
		s.call("supervisor.getSupervisorVersion")
		s.call("supervisor.getIdentification")
		s.call("supervisor.getAllProcessInfo")
		s.call("supervisor.startProcess", "b", "x")
		s.call("supervisor.addProcessGroup", "a")
		s.call("supervisor.addProcessGroup", "nobody")
		s.call("supervisor.removeProcessGroup", "a")
		s.call("supervisor.stopProcess", "b")
		s.call("supervisor.startAllProcesses")
		s.call("supervisor.stopAllProcesses")
		call := func(name string, params ...any) map[string]any {
			if params == nil {
				params = []any{}
			}
			return map[string]any{"methodName": name, "params": params}
		}
		s.call("system.multicall", []any{
			call("supervisor.startProcess", "a"), call("supervisor.getProcessInfo", "nobody"), call("supervisor.getState"),
			call("system.multicall", []any{}), call("supervisor.nothing"), call("supervisor.getState", 1),
			map[string]any{"params": []any{}},
		})
		s.call("system.multicall", []any{})
		s.http(post("not xml at all", ""), "")
		s.http(post("<methodCall>", ""), "")
		s.http(post(methodCall("supervisor.getAPIVersion", ""), ""), "")
		s.http("GET /RPC2 HTTP/1.0\r\n\r\n", "")
		s.http("GET /no/such/page HTTP/1.0\r\n\r\n", "")
	})
}

func TestPasswords(t *testing.T) {
	for _, password := range []string{"secret", "{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4"} {
		t.Run(password[:4], func(t *testing.T) {
			conf := strings.Replace(header, "s.sock\n", "s.sock\nusername = me\npassword = "+password+"\nchmod = 0770\nchown = nobody:nogroup\n", 1)
			play(t, strings.Replace(conf, "[supervisorctl]\n", "[supervisorctl]\nusername = me\npassword = secret\n", 1)+"[program:a]\ncommand = "+sleeper+"\n", func(s *side) {
				s.untilFile("main.log", "success: a")
				s.ctl("status", "a")
				for _, credentials := range [][2]string{{"me", "secret"}, {"me", "wrong"}, {"you", "secret"}} {
					s.note("as %v: %s", credentials, compact(s.driver.ask(s.t, map[string]any{"ask": "rpc", "url": s.url(), "method": "supervisor.getState", "params": []any{}, "username": credentials[0], "password": credentials[1]})))
				}
				s.call("supervisor.getState")
				for _, authorization := range []string{"", "Authorization: Digest x\r\n", "Authorization: Basic bWU6c2VjcmV0\r\n"} {
					s.http(post(methodCall("supervisor.getAPIVersion", ""), authorization), "")
				}
				s.ctl("-u", "me", "-p", "wrong", "status")
				var st syscall.Stat_t
				if err := syscall.Stat(s.path("s.sock"), &st); err != nil {
					s.t.Error(err)
				}
				s.note("socket %o of %d:%d", st.Mode, st.Uid, st.Gid)
			})
		})
	}
}

func TestFastCGISocketIsShared(t *testing.T) {
	playAfter(t, func(s *side) {
		s.write("serve.py", `import os, socket, sys
s = socket.socket(fileno=os.dup(0))
while True:
    c, _ = s.accept()
    c.sendall(("%s of %s\n" % (sys.argv[1], s.getsockname())).encode())
    c.close()
`)
	}, `
[fcgi-program:fast]
command = `+python+` %(here)s/serve.py served
socket = unix://%(here)s/%(program_name)s.sock
socket_mode = 0600
socket_backlog = 7
process_name = f%(process_num)d
numprocs = 4
stopsignal = KILL
`, func(s *side) {
		for _, name := range []string{"fast:f0", "fast:f3"} {
			s.until(name, "RUNNING")
		}
		ask := func() {
			s.note("answer %s", s.driver.ask(s.t, map[string]any{"ask": "raw", "path": s.path("fast.sock"), "text": "", "wait": ""})["output"])
		}
		ask()
		s.ctl("restart", "fast:f0")
		ask()
		s.ctl("stop", "fast:f1", "fast:f2")
		ask()
		s.ctl("stop", "fast:*")
		s.note("socket is there: %v", s.exists("fast.sock"))
		s.ctl("start", "fast:*")
		ask()
		var st syscall.Stat_t
		if err := syscall.Stat(s.path("fast.sock"), &st); err != nil {
			s.t.Error(err)
		}
		s.note("mode %o", st.Mode)
		s.log("socket")
	})
}

func TestIncludesAndExpansions(t *testing.T) {
	playAfter(t, func(s *side) {
		s.write("conf.d/b.conf", "[program:b]\ncommand = /bin/sh -c \"echo %(here)s %(ENV_PARITY)s %(program_name)s 100%% > %(ENV_TMPDIR)s/b.said; exec sleep 1000\"\nstdout_logfile = %(here)s/%(program_name)s-%%%%.log\n")
		s.write("conf.d/a.conf", "[program:a]\ncommand = /bin/sh -c \"echo $SUPERVISOR_ENABLED $SUPERVISOR_PROCESS_NAME $SUPERVISOR_GROUP_NAME $SUPERVISOR_SERVER_URL $X $HOME > %(ENV_TMPDIR)s/a.said; exec sleep 1000\"\nenvironment = X=\"own, %(ENV_PARITY)s\"\n")
		s.write("conf.d/ignored.txt", "nonsense")
	}, header+"[include]\nfiles = conf.d/*.conf none/*.conf\n", func(s *side) {
		s.until("a", "RUNNING")
		s.until("b", "RUNNING")
		s.untilFile("a.said", "\n")
		s.untilFile("b.said", "\n")
		s.note("a %s", s.read("a.said"))
		s.note("b %s", s.read("b.said"))
		s.note("doubled percent %v", s.exists("conf.d/b-%.log"))
		s.ctl("avail")
		s.log("Included extra file", "No file matches")
	})
}
