package parity

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
)

// dying is a program that outlives its startsecs the first time and then ends by how; its second run stays.
func dying(name, how string) string {
	return fmt.Sprintf("/bin/sh -c \"if test -e %%(here)s/%s; then exec sleep 1000; fi; sleep 1.6; touch %%(here)s/%s; %s\"", name, name, how)
}

func TestExitAfterRunning(t *testing.T) {
	var conf strings.Builder
	conf.WriteString(recorder("PROCESS_STATE"))
	type program struct{ name, end string }
	var all []program
	for _, restart := range []string{"true", "false", "unexpected"} {
		for _, exit := range []struct{ name, how string }{{"zero", "exit 0"}, {"two", "exit 2"}, {"killed", "kill -9 $$"}} {
			name := restart + "-" + exit.name
			fmt.Fprintf(&conf, "[program:%s]\ncommand = %s\nautorestart = %s\n", name, dying(name, exit.how), restart)
			end := "EXITED"
			if restart == "true" || restart == "unexpected" && exit.name != "zero" {
				end = "RUNNING"
			}
			all = append(all, program{name, end})
		}
	}
	play(t, conf.String(), func(s *side) {
		for _, p := range all {
			s.untilFile("events", "PROCESS_STATE_EXITED pool:recorder ver:3.0 server:parity 'processname:"+p.name+" ")
			s.until(p.name, p.end)
		}
		s.ctl("status")
		for _, p := range all {
			s.events("events", p.name)
			s.log("exited: " + p.name)
		}
	})
}

func TestStartsecsZeroIsRunningAtOnce(t *testing.T) {
	play(t, recorder("PROCESS_STATE")+`
[program:once]
command = /bin/true
startsecs = 0
autorestart = false
[program:odd]
command = /bin/false
startsecs = 0
autorestart = false
exitcodes = 0,1
[program:wrong]
command = /bin/false
startsecs = 0
autorestart = false
autostart = false
`, func(s *side) {
		s.until("recorder", "RUNNING")
		s.until("once", "EXITED")
		s.until("odd", "EXITED")
		s.ctl("start", "wrong")
		s.until("wrong", "EXITED")
		s.call("supervisor.getProcessInfo", "wrong")
		s.ctl("status")
		s.events("events", "once", "odd", "wrong")
	})
}

// The pauses between the starts of a program that does not come up are 1, 2, 3… seconds in both; Supervisor looks once
// a second, so that its own vary by one.
func TestBackoffTakesAsLong(t *testing.T) {
	var pauses [2][]float64
	play(t, recorder("PROCESS_STATE")+`
[program:never]
command = /bin/false
startretries = 3
`, func(s *side) {
		s.until("never", "FATAL")
		s.untilFile("events", "PROCESS_STATE_FATAL")
		var at []float64
		for line := range strings.Lines(s.read("events")) {
			stamp, event, _ := strings.Cut(line, " ")
			if !strings.Contains(event, "processname:never ") || !strings.HasPrefix(event, "PROCESS_STATE_STARTING") && !strings.HasPrefix(event, "PROCESS_STATE_FATAL") {
				continue
			}
			seconds, err := strconv.ParseFloat(stamp, 64)
			if err != nil {
				s.t.Error(err)
			}
			at = append(at, seconds)
		}
		which := 0
		if len(s.daemon) > 1 {
			which = 1
		}
		for i := 1; i < len(at); i++ {
			pauses[which] = append(pauses[which], at[i]-at[i-1])
		}
		s.note("%d starts", len(at)-1)
		s.events("events", "never")
	})
	if len(pauses[0]) != len(pauses[1]) {
		t.Fatalf("pauses %v and %v", pauses[0], pauses[1])
	}
	for i := range pauses[0] {
		if math.Abs(pauses[0][i]-pauses[1][i]) > 1.5 {
			t.Errorf("pause %d took Supervisor %.1fs and hozo %.1fs", i, pauses[0][i], pauses[1][i])
		}
	}
}
