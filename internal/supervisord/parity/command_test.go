package parity

import (
	"os"
	"strings"
	"testing"
)

// What fails after the fork fails in the child, which under the race detector and on a busy machine takes its time: its
// startsecs leave it that.
func TestCommandsThatCannotRun(t *testing.T) {
	playAfter(t, func(s *side) {
		s.write("plain", "not a program")
		s.write("bin/mine", "#!/bin/sh\necho \"$0 $@\" > "+s.path("ran")+"\n")
		s.write("noexec", "\x00\x01 no program")
		for _, name := range []string{"bin/mine", "noexec"} {
			if err := os.Chmod(s.path(name), 0o755); err != nil {
				s.t.Error(err)
			}
		}
	}, recorder("PROCESS_STATE")+`
[program:missing]
command = /no/such/program
startretries = 0
[program:unfound]
command = no-such-program-anywhere
startretries = 0
[program:folder]
command = /tmp
startretries = 0
[program:plainfile]
command = %(here)s/plain
startretries = 0
[program:quote]
command = /bin/sh -c "unbalanced
startretries = 0
[program:empty]
command =
startretries = 0
[program:badfolder]
command = `+sleeper+`
directory = /no/such/folder
startretries = 0
startsecs = 20
[program:noexec]
command = %(here)s/noexec
startretries = 0
startsecs = 20
[program:bypath]
command = mine first "second word"
environment = PATH="%(here)s/bin:/bin"
startsecs = 0
autorestart = false
autostart = false
[program:relative]
command = bin/mine
directory = %(here)s
startretries = 0
`, func(s *side) {
		bad := []string{"missing", "unfound", "folder", "plainfile", "quote", "empty", "badfolder", "noexec"}
		for _, name := range bad {
			s.until(name, "FATAL")
			s.untilFile("events", "PROCESS_STATE_FATAL pool:recorder ver:3.0 server:parity 'processname:"+name+" ")
			s.events("events", name)
		}
		s.ctl("start", "bypath")
		s.untilFile("ran", "second word")
		s.note("ran %s", s.read("ran"))
		s.until("bypath", "EXITED")
		s.ctl("status")
		for _, name := range bad {
			s.ctl("start", name)
			s.until(name, "FATAL")
			s.call("supervisor.getProcessInfo", name)
			s.call("supervisor.startProcess", name)
			s.until(name, "FATAL")
		}
		for _, name := range []string{"noexec", "badfolder"} {
			first, _, _ := strings.Cut(s.stderrOf(name), "not spawned")
			s.note("said %s", first)
			s.log("spawned: '" + name + "'")
		}
		s.log("spawnerr")
	})
}

func TestNumprocsGroupsAndNames(t *testing.T) {
	play(t, `
[program:many]
command = /bin/sh -c "echo %(process_num)d of %(numprocs)d > %(here)s/many.%(process_num)02d; exec sleep 1000"
process_name = %(program_name)s_%(process_num)02d
numprocs = 3
numprocs_start = 1
[program:x]
command = `+sleeper+`
priority = 2
[program:y]
command = `+sleeper+`
priority = 1
autostart = false
[group:pair]
programs = x,y
priority = 5
`, func(s *side) {
		for _, name := range []string{"many:many_01", "many:many_03", "pair:x"} {
			s.until(name, "RUNNING")
		}
		s.untilFile("many.03", "3 of 3")
		s.ctl("status")
		s.ctl("status", "many:*")
		s.ctl("status", "pair:x", "many:many_02")
		s.ctl("status", "x", "many:none", "none:*")
		s.ctl("avail")
		s.ctl("stop", "many:*")
		s.ctl("start", "many:*")
		s.ctl("restart", "pair:*")
		s.ctl("stop", "pair:x")
		s.ctl("start", "pair:x")
		s.ctl("start", "none:*")
		s.ctl("stop", "x")
		s.ctl("start", "many")
		s.ctl("stop", "all")
		s.ctl("start", "all")
		s.ctl("status")
		s.call("supervisor.getAllConfigInfo")
		s.call("supervisor.startProcessGroup", "none")
		s.call("supervisor.startProcess", "pair:*")
		s.call("supervisor.startProcess", "pair:")
		s.call("supervisor.stopProcess", "pair")
	})
}
