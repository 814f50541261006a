package parity

import (
	"strconv"
	"testing"
)

func TestListenersOfEveryMood(t *testing.T) {
	priority := 0
	section := func(name, events, mood, more string) string {
		// Supervisor gives a rejected event back to every pool whose listeners have the priority of the one that rejected
		// it, for it compares processes by priority. Ours gives it back to its own pool, so each has a priority of its own.
		priority++
		return "[eventlistener:" + name + "]\ncommand = " + python + " %(here)s/listener.py %(here)s/" + name + " " + mood + "\nevents = " + events + "\nstderr_logfile = NONE\npriority = " + strconv.Itoa(priority) + "\n" + more
	}
	play(t, section("good", "REMOTE_COMMUNICATION", "ok", "")+
		section("failing", "REMOTE_COMMUNICATION", "fail-once", "")+
		section("dying", "REMOTE_COMMUNICATION", "die-once", "autorestart = true\nstartsecs = 0\n")+
		section("garbage", "REMOTE_COMMUNICATION", "garbage", "")+
		section("odd", "REMOTE_COMMUNICATION", "odd", "")+
		section("silent", "REMOTE_COMMUNICATION", "silent", "buffer_size = 2\n")+
		section("slow", "REMOTE_COMMUNICATION", "slow", "buffer_size = 2\n")+
		section("babble", "REMOTE_COMMUNICATION", "babble", ""), func(s *side) {
		names := []string{"good", "failing", "dying", "garbage", "odd", "silent", "slow", "babble"}
		for _, name := range names {
			s.until(name, "RUNNING")
		}
		s.untilExists("silent")
		for _, n := range []string{"one", "two", "three", "four", "f\u00fcnf \u4eac"} {
			s.call("supervisor.sendRemoteCommEvent", n, "data of "+n)
		}
		s.untilFile("slow", "type:one")
		s.write("slow.go", "")
		for _, name := range []string{"good", "failing", "dying", "odd", "slow"} {
			s.untilFile(name, "fünf")
		}
		s.untilFile("main.log", "bad result line: 'NONSENSE 2'")
		for _, name := range names {
			s.record(name)
		}
		s.ctl("status")
		s.log("buffer overflowed", "buffer")
	})
}

func TestCapturedText(t *testing.T) {
	const begin, end = "<!--XSUPERVISOR:BEGIN-->", "<!--XSUPERVISOR:END-->"
	playAfter(t, func(s *side) {
		// Tokens in pieces, at the edge of a read, and more text than is kept.
		s.write("talk.py", `import sys, time
def say(text):
    sys.stdout.write(text); sys.stdout.flush(); time.sleep(0.1)
say("before `+begin+`one`+end+` after\n")
say("<!--XSUPER"); say("VISOR:BEGIN-->tw"); say("o<!--XSUPERVISOR"); say(":END-->\n")
say("`+begin+`" + "x" * 3000 + "`+end+`\n")
say("`+begin+`a`+end+``+begin+`b`+end+`\n")
say("done\n")
open(sys.argv[1], "w").close()
time.sleep(1000)
`)
		s.write("complain.py", `import sys, time
sys.stderr.write("`+begin+`err`+end+`and words enough to be written at once, for a short rest waits\n"); sys.stderr.flush()
time.sleep(1000)
`)
	}, recorder("PROCESS_COMMUNICATION")+`
[program:talk]
command = `+python+` %(here)s/talk.py %(here)s/spoken
stdout_capture_maxbytes = 1KB
stdout_logfile = %(here)s/talk.out
[program:complain]
command = `+python+` %(here)s/complain.py
stderr_capture_maxbytes = 1KB
stderr_logfile = %(here)s/complain.err
`, func(s *side) {
		s.untilExists("spoken")
		s.untilFile("events", "PROCESS_COMMUNICATION_STDERR")
		s.untilFile("complain.err", "waits")
		s.events("events", "talk", "complain")
		s.note("out %q", s.read("talk.out"))
		s.note("err %q", s.read("complain.err"))
	})
}

func TestLogEventsAndStdin(t *testing.T) {
	play(t, recorder("PROCESS_LOG")+`
[program:echo]
command = /bin/cat
stdout_events_enabled = true
stdout_logfile = %(here)s/echo.out
[program:deaf]
command = /bin/sh -c "exec 0<&-; touch %(here)s/deaf; exec sleep 1000"
[program:stopped]
command = /bin/cat
autostart = false
`, func(s *side) {
		s.until("echo", "RUNNING")
		s.until("recorder", "RUNNING")
		s.untilExists("deaf")
		s.call("supervisor.sendProcessStdin", "echo", "hello\n")
		s.untilFile("echo.out", "hello\n")
		s.call("supervisor.sendProcessStdin", "echo", "k\u00e4se\n")
		s.untilFile("echo.out", "käse\n")
		s.call("supervisor.sendProcessStdin", "deaf", "x")
		s.call("supervisor.sendProcessStdin", "stopped", "x")
		s.call("supervisor.sendProcessStdin", "nobody", "x")
		s.call("supervisor.sendProcessStdin", "recorder:*", "x")
		s.call("supervisor.sendProcessStdin", "echo", 5)
		s.events("events", "echo")
	})
}
