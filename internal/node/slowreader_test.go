package node_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// Ten services read one stream; the handler of one does not return and the process of another is stopped. Status names
// these two and no other, and the eight lose nothing by them.
func TestSlowServicesAmongTenAreNamed(t *testing.T) {
	t.Parallel()
	const events = 200
	var services strings.Builder
	const quick = 8
	for i := range quick {
		fmt.Fprintf(&services, "  quick%d: { run: \"%%[1]s tiny\", health: notify, consumes: [events.raw] }\n", i)
	}
	fmt.Fprintf(&services, "  slow: { run: \"%%[1]s gated\", health: notify, consumes: [events.raw], env: { GATE: %q } }\n", filepath.Join(t.TempDir(), "gate"))
	services.WriteString("  stopped: { run: \"%[1]s tiny\", health: notify, consumes: [events.raw] }\n")
	services.WriteString("  feeder: { run: \"%[1]s idle\", publishes: [events.raw] }\n")
	p := up(t, services.String())
	stopped := service(p.status(t), "stopped").Instances[0].PID
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(stopped, syscall.SIGCONT) }) // so that it can be asked to end
	began := time.Now()
	for range events {
		p.feed(t, "event")
	}
	fed := time.Now()
	named := func(s status.Snapshot) (all []string) {
		for _, one := range s.Problems {
			if one.Code == "reader/slow" {
				all = append(all, one.Service)
			}
		}
		return all
	}
	p.await(t, "both are named", func(s status.Snapshot) bool {
		return slices.Contains(named(s), "slow") && slices.Contains(named(s), "stopped")
	})
	t.Logf("named %v after the last event, %v after the first", time.Since(fed), time.Since(began))
	s := p.await(t, "the eight have all", func(s status.Snapshot) bool {
		for i := range quick {
			if service(s, fmt.Sprintf("quick%d", i)).Traffic.Edges["consumes events.raw"].Events != events {
				return false
			}
		}
		if len(s.Streams) == 0 {
			return false
		}
		for _, c := range s.Streams[0].Consumers {
			if c.Service != "slow" && c.Service != "stopped" && c.Lag+uint64(c.InFlight) > 0 {
				return false
			}
		}
		return s.Streams[0].LastSeq == events
	})
	if len(named(s)) != 2 {
		t.Errorf("named as slow are %v", named(s))
	}
	for _, c := range s.Streams[0].Consumers {
		if behind := c.Lag + uint64(c.InFlight); (c.Service == "slow" || c.Service == "stopped") && behind != events {
			t.Errorf("%s is %d behind, want %d", c.Service, behind, events)
		}
	}
}
