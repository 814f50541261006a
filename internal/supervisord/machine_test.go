//go:build linux

package supervisord_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

// legal is every move of the machine.
var legal = map[string]string{
	"STOPPED": "STARTING", "STARTING": "RUNNING BACKOFF STOPPING", "RUNNING": "EXITED STOPPING",
	"BACKOFF": "STARTING FATAL STOPPED", "STOPPING": "STOPPED", "EXITED": "STARTING STOPPED", "FATAL": "STARTING",
}

// TestRandomOperationsKeepToTheMachine starts, stops, kills and signals programs of every kind at random; the states that
// are told must follow one another, and nothing may be left at the end.
func TestRandomOperationsKeepToTheMachine(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := run(t, listener(t, "all", "PROCESS_STATE")+`
[program:calm]
command=/bin/cat
startsecs=0
autorestart=true
[program:brief]
command=/bin/sh -c "exit 1"
startretries=1
[program:deaf]
command=/bin/sh -c "trap '' TERM; while :; do /bin/sleep 0.02; done"
startsecs=0
stopwaitsecs=0
[program:quick]
command=/bin/true
startsecs=0
autorestart=true
`)
	names := []string{"calm", "brief", "deaf", "quick"}
	for range 400 {
		name := names[random.IntN(len(names))]
		switch random.IntN(4) {
		case 0:
			d.post(fmt.Sprintf("<methodCall><methodName>supervisor.startProcess</methodName><params><param><value>%s</value></param>"+
				"<param><value><boolean>0</boolean></value></param></params></methodCall>", name))
		case 1:
			d.post(fmt.Sprintf("<methodCall><methodName>supervisor.stopProcess</methodName><params><param><value>%s</value></param>"+
				"<param><value><boolean>%d</boolean></value></param></params></methodCall>", name, random.IntN(2)))
		case 2:
			d.call("supervisor.signalProcess", name, "KILL")
		case 3:
			d.call("supervisor.getAllProcessInfo")
		}
	}
	d.call("supervisor.stopAllProcesses")
	testkit.Eventually(t, func() bool {
		return !strings.Contains(d.call("supervisor.getAllProcessInfo"), "<string>STOPPING</string>")
	}, "all have stopped")
	d.ctl("start", "all") // a mark for the end of the events
	d.ctl("shutdown")
	testkit.Wait(t, d.ended)
	events := regexp.MustCompile(`PROCESS_STATE_(\w+) processname:(\w+) \S+ from_state:(\w+)`).FindAllStringSubmatch(d.file("all.events"), -1)
	if len(events) < 100 {
		t.Errorf("only %d events", len(events))
	}
	state := map[string]string{}
	for i, e := range events {
		to, name, from := e[1], e[2], e[3]
		if was, known := state[name]; known && was != from {
			t.Fatalf("event %d: %s left %s, but was %s", i, name, from, was)
		}
		if !strings.Contains(legal[from], to) {
			t.Fatalf("event %d: %s went from %s to %s", i, name, from, to)
		}
		state[name] = to
	}
}
