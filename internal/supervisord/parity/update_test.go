package parity

import (
	"strings"
	"syscall"
	"testing"
)

func TestRereadAndUpdate(t *testing.T) {
	const before = `
[program:same]
command = ` + sleeper + `
[program:changed]
command = ` + sleeper + `
[program:gone]
command = ` + sleeper + `
[program:many]
command = ` + sleeper + `
process_name = m%(process_num)d
numprocs = 2
`
	const after = `
[program:same]
command = ` + sleeper + `
[program:changed]
command = ` + sleeper + `
stopwaitsecs = 3
[program:fresh]
command = ` + sleeper + `
[program:idle]
command = ` + sleeper + `
autostart = false
[program:many]
command = ` + sleeper + `
process_name = m%(process_num)d
numprocs = 3
`
	play(t, recorder("PROCESS_GROUP,PROCESS_STATE_STARTING,PROCESS_STATE_STOPPED")+before, func(s *side) {
		for _, name := range []string{"recorder", "same", "changed", "gone", "many:m1"} {
			s.until(name, "RUNNING")
		}
		s.ctl("reread")
		s.ctl("update")
		s.write("supervisord.conf", header+recorder("PROCESS_GROUP,PROCESS_STATE_STARTING,PROCESS_STATE_STOPPED")+after)
		s.ctl("reread")
		s.ctl("reread")
		s.ctl("avail")
		s.ctl("add", "fresh", "fresh", "nobody")
		s.ctl("remove", "gone")
		s.ctl("update", "changed", "nobody")
		s.ctl("update")
		s.until("fresh", "RUNNING")
		s.until("many:m2", "RUNNING")
		s.until("changed", "RUNNING")
		s.ctl("status")
		s.ctl("stop", "fresh")
		s.ctl("remove", "fresh")
		s.ctl("remove", "nobody")
		s.ctl("add", "fresh")
		s.until("fresh", "RUNNING")
		for _, broken := range []string{"[program:x]\n", "[program:x]\ncommand=x\nautostart=perhaps\n", "[program:x y]\ncommand=x\n", "[group:g]\nprograms=none\n", "nonsense\n", "[program:x]\ncommand=%(no)s\n"} {
			s.write("supervisord.conf", header+recorder("PROCESS_GROUP,PROCESS_STATE_STARTING,PROCESS_STATE_STOPPED")+after+broken)
			said := s.quiet("supervisor.reloadConfig")
			text, _, _ := strings.Cut(compact(said), "Available names")
			s.note("reloadConfig of %q -> %s", broken, text)
		}
		s.ctl("status")
		s.events("events", "same", "changed", "gone", "fresh")
	})
}

func TestReloadAndShutdownByRPC(t *testing.T) {
	play(t, "[program:a]\ncommand = "+sleeper+"\n[program:b]\ncommand = "+sleeper+"\nautostart = false\n", func(s *side) {
		s.until("a", "RUNNING")
		s.ctl("start", "b")
		s.ctl("reload")
		s.until("b", "STOPPED")
		s.until("a", "RUNNING")
		s.ctl("status")
		s.ctl("shutdown")
		s.wait()
		s.note("socket %v, pidfile %v", s.exists("s.sock"), s.exists("s.pid"))
		s.ctl("status")
		s.log("WARN received", "waiting for", "stopped:")
	})
}

func TestSignalsToTheDaemon(t *testing.T) {
	play(t, `
[program:a]
command = `+sleeper+`
[program:log]
command = /bin/sh -c "while :; do echo line; sleep 0.1; done"
stdout_logfile = %(here)s/log.out
[program:last]
command = `+sleeper+`
priority = 1
`, func(s *side) {
		s.until("a", "RUNNING")
		s.until("log", "RUNNING")
		s.untilFile("log.out", "line")
		s.rename("log.out", "log.old")
		s.rename("main.log", "main.old")
		s.signal(syscall.SIGUSR2)
		s.untilFile("log.out", "line")
		s.untilExists("main.log")
		s.note("SIGUSR2 was logged before: %v", strings.Contains(s.read("main.old"), "received SIGUSR2 indicating log reopen request"))
		s.signal(syscall.SIGHUP)
		s.untilFile("main.log", "supervisord started")
		s.until("a", "RUNNING")
		s.ctl("status", "a")
		s.log("SIGHUP", "waiting for", "stopped:")
		s.signal(syscall.SIGTERM)
		s.wait()
		s.note("socket %v, pidfile %v", s.exists("s.sock"), s.exists("s.pid"))
		s.log("SIGTERM")
	})
}

func TestCallsDuringShutdown(t *testing.T) {
	play(t, `
[program:slow]
command = /bin/sh -c "trap 'while test ! -e %(here)s/go; do sleep 0.05; done; exit 0' TERM; touch %(here)s/slow; while :; do sleep 0.05; done"
stopwaitsecs = 60
stderr_logfile = NONE
`, func(s *side) {
		s.until("slow", "RUNNING")
		s.untilExists("slow")
		s.signal(syscall.SIGTERM)
		s.untilFile("main.log", "waiting for slow")
		s.call("supervisor.getState")
		s.call("supervisor.getProcessInfo", "slow")
		s.call("supervisor.startProcess", "slow")
		s.call("supervisor.sendRemoteCommEvent", "x", "y")
		s.ctl("status")
		s.signal(syscall.SIGHUP)
		s.untilFile("main.log", "SIGHUP")
		s.log("SIGHUP")
		s.write("go", "")
		s.wait()
	})
}
