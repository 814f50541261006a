package parity

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestLogsReadTailClear(t *testing.T) {
	play(t, `
[program:talk]
command = /bin/sh -c "printf 'line %%d\n' 1 2 3 4 5; printf 'last byte\n'; echo problem >&2; touch %(here)s/said; exec sleep 1000"
stdout_logfile = %(here)s/talk.out
stderr_logfile = %(here)s/talk.err
[program:mute]
command = `+sleeper+`
stdout_logfile = NONE
stderr_logfile = off
[program:never]
command = `+sleeper+`
autostart = false
[program:both]
command = /bin/sh -c "echo out; echo err >&2; exec sleep 1000"
redirect_stderr = true
stdout_logfile = %(here)s/both.out
`, func(s *side) {
		s.until("talk", "RUNNING")
		s.untilFile("talk.out", "byte")
		s.untilFile("talk.err", "problem")
		s.untilFile("both.out", "err")
		for _, at := range [][2]int{{0, 0}, {0, 6}, {7, 7}, {-10, 0}, {-10000, 0}, {10000, 0}, {0, -1}, {-1, 1}, {5, 10000}} {
			s.call("supervisor.readProcessStdoutLog", "talk", at[0], at[1])
			s.call("supervisor.readProcessStderrLog", "talk", at[0], at[1])
		}
		for _, at := range [][2]int{{0, 0}, {0, 6}, {0, 1000}, {20, 5}, {1000, 10}, {-5, 5}, {3, -1}} {
			s.call("supervisor.tailProcessStdoutLog", "talk", at[0], at[1])
			s.call("supervisor.tailProcessStderrLog", "talk", at[0], at[1])
		}
		for _, name := range []string{"mute", "never", "nobody", "talk:*"} {
			s.call("supervisor.readProcessStdoutLog", name, 0, 0)
			s.call("supervisor.tailProcessStdoutLog", name, 0, 10)
		}
		s.ctl("tail", "talk", "stderr")
		s.ctl("tail", "-8", "both")
		s.ctl("tail", "mute")
		s.ctl("tail", "nobody")
		s.ctl("tail", "talk", "wrong")
		s.ctl("tail")
		s.ctl("clear", "talk")
		s.note("cleared %q", s.read("talk.out"))
		s.ctl("clear", "nobody")
		s.ctl("clear", "all")
		s.ctl("fg")
		s.call("supervisor.clearProcessLogs", "mute")
		s.call("supervisor.clearAllProcessLogs")
		s.call("supervisor.readLog", 0, 23)
		s.call("supervisor.readLog", -1, 5)
		s.call("supervisor.clearLog")
		s.ctl("maintail", "wrong")
	})
}

func TestRotation(t *testing.T) {
	play(t, `
[program:small]
command = /bin/sh -c "i=0; while test $i -lt 40; do echo 0123456789012345678901234567890123456789; i=$((i+1)); sleep 0.02; done; touch %(here)s/small; exec sleep 1000"
stdout_logfile = %(here)s/small.out
stdout_logfile_maxbytes = 400
stdout_logfile_backups = 2
[program:none]
command = /bin/sh -c "i=0; while test $i -lt 40; do echo 0123456789012345678901234567890123456789; i=$((i+1)); sleep 0.02; done; echo end; exec sleep 1000"
stdout_logfile = %(here)s/none.out
stdout_logfile_maxbytes = 400
stdout_logfile_backups = 0
[program:ever]
command = /bin/sh -c "i=0; while test $i -lt 40; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; exec sleep 1000"
stdout_logfile = %(here)s/ever.out
stdout_logfile_maxbytes = 0
`, func(s *side) {
		s.untilExists("small")
		s.untilFile("none.out", "end")
		s.eventually(func() bool { return strings.Count(s.read("ever.out"), "\n") == 40 }, "ever has its lines")
		for _, name := range []string{"small.out*", "none.out*", "ever.out*"} {
			found, err := filepath.Glob(s.path(name))
			if err != nil {
				s.t.Error(err)
			}
			for _, f := range found {
				s.note("file %s", filepath.Base(f))
			}
		}
		rotated := s.read("small.out.1")
		s.note("a rotated file is past its limit: %v, by less than a read: %v", len(rotated) >= 400, len(rotated) < 400+82)
		s.note("without backups the file stays small: %v", len(s.read("none.out")) < 400+82)
	})
}

func TestFollowingALog(t *testing.T) {
	play(t, `
[program:talk]
command = /bin/sh -c "echo first; while test ! -e %(here)s/go; do sleep 0.05; done; echo second; while test ! -e %(here)s/again; do sleep 0.05; done; echo third; exec sleep 1000"
stdout_logfile = %(here)s/talk.out
[program:mute]
command = `+sleeper+`
stdout_logfile = NONE
`, func(s *side) {
		s.untilFile("talk.out", "first")
		s.write("go", "")
		s.follow("/logtail/talk", "second")
		s.follow("/logtail/talk/stdout", "second")
		s.follow("/mainlogtail", "spawned")
		s.follow("/logtail/nobody", "\r\n\r\n")
		s.follow("/logtail/mute", "\r\n\r\n")
		s.follow("/logtail/talk/wrong", "\r\n\r\n")
	})
}
