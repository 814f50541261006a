package parity

import "testing"

func TestStopInEveryState(t *testing.T) {
	play(t, recorder("PROCESS_STATE")+`
[program:stubborn]
command = /bin/sh -c "trap '' TERM; touch %(here)s/stubborn; while :; do sleep 0.1; done"
stopwaitsecs = 1
killasgroup = true
[program:starting]
command = `+sleeper+`
startsecs = 100
[program:backoff]
command = /bin/false
startretries = 100
[program:polite]
command = /bin/sh -c "trap 'exit 7' USR1; touch %(here)s/polite; while :; do sleep 0.1; done"
stopsignal = USR1
killasgroup = true
[program:slow]
command = /bin/sh -c "trap 'while test ! -e %(here)s/go; do sleep 0.05; done; exit 0' TERM; touch %(here)s/slow; while :; do sleep 0.05; done"
killasgroup = true
`, func(s *side) {
		s.until("stubborn", "RUNNING")
		s.until("polite", "RUNNING")
		s.until("slow", "RUNNING")
		for _, up := range []string{"stubborn", "polite", "slow"} {
			s.untilExists(up)
		}
		s.ctl("stop", "starting")
		s.until("backoff", "BACKOFF")
		s.ctl("stop", "backoff")
		s.ctl("status", "backoff")
		s.ctl("stop", "polite")
		s.ctl("stop", "stubborn")
		s.call("supervisor.stopProcess", "slow", false)
		s.until("slow", "STOPPING")
		s.call("supervisor.stopProcess", "slow")
		s.call("supervisor.startProcess", "slow")
		s.ctl("signal", "CONT", "slow")
		s.ctl("status", "slow")
		s.write("go", "")
		s.until("slow", "STOPPED")
		s.ctl("status")
		s.events("events", "stubborn", "starting", "polite", "slow")
		s.log("stopped: ", "killing ", "waiting for stubborn")
	})
}

func TestStopReachesTheGroup(t *testing.T) {
	// Each program has a child that says by a file that it got the signal; its stderr is its own, for the daemon's end
	// closes with the leader.
	child := "/bin/sh -c \"sh -c 'exec 2>/dev/null; trap \\\"touch %(here)s/%(program_name)s.term; exit\\\" TERM; touch %(here)s/%(program_name)s.up; while :; do sleep 0.05; done' & trap 'exit 0' TERM; while :; do sleep 0.05; done\""
	play(t, `
[program:alone]
command = `+child+`
[program:asgroup]
command = `+child+`
stopasgroup = true
[program:killed]
command = /bin/sh -c "sh -c 'trap \"\" TERM; touch %(here)s/killed.up; while :; do sleep 0.05; done' & trap '' TERM; while :; do sleep 0.05; done"
stopwaitsecs = 1
killasgroup = true
`, func(s *side) {
		for _, name := range []string{"alone", "asgroup", "killed"} {
			s.until(name, "RUNNING")
			s.untilExists(name + ".up")
		}
		s.ctl("stop", "killed")
		s.ctl("stop", "asgroup")
		s.untilExists("asgroup.term")
		s.note("asgroup's child was told")
		s.ctl("stop", "alone")
		s.note("alone's child was told: %v", s.exists("alone.term"))
		s.ctl("status")
		s.killLeft()
	})
}

func TestSignals(t *testing.T) {
	play(t, `
[program:a]
command = /bin/sh -c "trap 'echo usr1 >> %(here)s/got' USR1; trap 'echo hup >> %(here)s/got' HUP; touch %(here)s/a; while :; do sleep 0.05; done"
[program:b]
command = `+sleeper+`
autostart = false
[program:c]
command = `+sleeper+`
[group:g]
programs = c
`, func(s *side) {
		s.until("a", "RUNNING")
		s.until("g:c", "RUNNING")
		s.untilExists("a")
		s.ctl("signal", "USR1", "a")
		s.untilFile("got", "usr1")
		s.ctl("signal", "SIGHUP", "a")
		s.untilFile("got", "hup")
		s.ctl("signal", "10", "a")
		s.untilFile("got", "usr1\nhup\nusr1")
		s.ctl("signal", "NOSUCH", "a")
		s.ctl("signal", "99", "a")
		s.ctl("signal", "HUP", "b")
		s.ctl("signal", "HUP", "nobody")
		s.ctl("signal", "HUP")
		s.ctl("signal", "CONT", "g:*")
		s.ctl("signal", "CONT", "nogroup:*")
		s.ctl("signal", "CONT", "all")
		s.call("supervisor.signalProcess", "a", "usr1")
		s.call("supervisor.signalProcess", "a", 0)
		s.call("supervisor.signalProcessGroup", "g", "CONT")
		s.call("supervisor.signalProcessGroup", "g", "BAD")
		s.call("supervisor.signalAllProcesses", "BAD")
		s.ctl("signal", "KILL", "a")
		s.until("a", "RUNNING")
	})
}
