package parity

import (
	"testing"
)

const sleeper = "/bin/sleep 1000"

func TestStartStopRestart(t *testing.T) {
	play(t, recorder("PROCESS_STATE")+`
[program:one]
command = `+sleeper+`
[program:later]
command = `+sleeper+`
autostart = false
`, func(s *side) {
		s.until("one", "RUNNING")
		s.ctl("status")
		s.ctl("status", "one")
		s.ctl("status", "nobody")
		s.ctl("start", "one")
		s.ctl("start", "later")
		s.ctl("stop", "one")
		s.ctl("stop", "one")
		s.ctl("restart", "one", "later")
		s.ctl("start", "nobody")
		s.ctl("start")
		s.ctl("stop", "nobody")
		s.ctl("avail")
		s.ctl("version")
		s.ctl("pid", "nobody")
		s.ctl("help")
		s.ctl("nonsense")
		s.events("events", "one", "later")
		s.ctl("stop", "all")
		s.ctl("status")
	})
}

func TestExitBeforeStartsecs(t *testing.T) {
	play(t, recorder("PROCESS_STATE")+`
[program:zero]
command = /bin/true
startretries = 2
[program:one]
command = /bin/false
startretries = 1
autorestart = false
[program:none]
command = /bin/false
startretries = 0
`, func(s *side) {
		s.until("none", "FATAL")
		s.until("one", "FATAL")
		s.until("zero", "FATAL")
		s.ctl("status")
		s.ctl("start", "none")
		s.until("none", "FATAL")
		s.call("supervisor.getProcessInfo", "none")
		s.events("events", "zero", "one")
		s.log("gave up: zero", "exited: zero")
	})
}
