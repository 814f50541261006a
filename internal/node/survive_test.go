package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
)

const manifestCounters = `  counter:
    run: "%[1]s count %[2]s"
    scale: %[3]d
  mortal:
    run: "%[1]s count %[2]s"
    restart: { policy: never }
`

// Services outlive their node: killed again and again, it finds the same processes, none of whose lines is lost or
// doubled, and knows how one ended that did so while there was no node. HOZO_SURVIVE_KILLS makes it 100 times, for
// example; HOZO_SURVIVE_VICTIMS=node,keeper,standby takes turns.
func TestFiftyServicesOutliveTheNodeKilledAgainAndAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("50 processes are too many for a quick run")
	}
	outlive(t, 50, victimsFromEnv(), killsFromEnv(t, 10))
}

func TestServicesOutliveNodeKeeperAndStandby(t *testing.T) {
	t.Parallel()
	outlive(t, 5, []string{"keeper", "standby", "node"}, 6)
}

func killsFromEnv(t *testing.T, otherwise int) int {
	t.Helper()
	text := os.Getenv("HOZO_SURVIVE_KILLS")
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func victimsFromEnv() []string {
	if text := os.Getenv("HOZO_SURVIVE_VICTIMS"); text != "" {
		return strings.Split(text, ",")
	}
	return []string{"node"}
}

// outlive runs scale services and one that ends meanwhile, and kills victims of the platform in turn.
func outlive(t *testing.T, scale int, victims []string, kills int) {
	t.Helper()
	dir := testkit.TempDir(t)
	p := up(t, manifestCounters, dir, scale)
	before := pids(p.status(t))
	mortal := before["mortal.1"]
	delete(before, "mortal.1")
	var longest time.Duration
	for i := range kills {
		name := victims[i%len(victims)]
		pid := pidOf(p.status(t), name)
		kill(t, pid)
		began := time.Now()
		if i == kills/2 { // while the victim is dead
			if err := syscall.Kill(mortal, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		after := p.await(t, "another "+name, func(s status.Snapshot) bool {
			return settled(s, scale) && pidOf(s, name) != pid && pidOf(s, name) != 0
		})
		longest = max(longest, time.Since(began))
		now := pids(after)
		delete(now, "mortal.1")
		if diff := cmp.Diff(before, now); diff != "" {
			t.Fatalf("services were touched by kill %d (-before +after):\n%s", i, diff)
		}
	}
	t.Logf("%d kills of %v; the longest until all was well again took %s", kills, victims, longest.Round(time.Millisecond))
	s := p.status(t)
	if one := service(s, "mortal").Instances[0]; one.State != status.Exited || one.Reason != "exit status 17" {
		t.Errorf("what ended meanwhile shows %+v", one)
	}
	for _, i := range service(s, "counter").Instances {
		if i.Restarts != 0 {
			t.Errorf("%s was restarted %d times", i.Name, i.Restarts)
		}
	}
	if err := p.client.Down(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	p.awaitOver(t)
	lines := 0
	for name := range before {
		lines += checkCounted(t, dir, p.state, name)
	}
	t.Logf("%d lines, each once and in order", lines+checkCounted(t, dir, p.state, "mortal.1"))
}

// pidOf is the pid of a process of the platform, 0 when the status shows none.
func pidOf(s status.Snapshot, name string) int {
	for _, p := range s.Platform {
		if p.Name == name {
			return p.PID
		}
	}
	return 0
}

// settled says whether all counters are ready.
func settled(s status.Snapshot, scale int) bool {
	up := 0
	for _, i := range service(s, "counter").Instances {
		if i.State == status.Ready {
			up++
		}
	}
	return up == scale
}

// checkCounted says whether the log of a counter has every line that it printed, once and in order.
func checkCounted(t *testing.T, dir, state, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatalf("%s did not end as asked: %v", name, err)
	}
	log, err := os.ReadFile(filepath.Join(state, "logs", name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for line := range strings.Lines(string(log)) {
		if line != fmt.Sprintf("line %d\n", next) {
			t.Errorf("%s: line %d is %q", name, next, line)
			return next
		}
		next++
	}
	if strconv.Itoa(next) != string(text) {
		t.Errorf("%s printed %s lines, its log has %d", name, text, next)
	}
	return next
}
