package node_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// Ten services read one stream and one of them stands still: status names that one and no other, and the nine lose
// nothing by it.
func TestTheSlowServiceAmongTenIsNamed(t *testing.T) {
	t.Parallel()
	const events = 200
	var services strings.Builder
	for i := range 9 {
		fmt.Fprintf(&services, "  quick%d: { run: \"%%[1]s tiny\", health: notify, consumes: [events.raw] }\n", i)
	}
	fmt.Fprintf(&services, "  slow: { run: \"%%[1]s gated\", health: notify, consumes: [events.raw], env: { GATE: %q } }\n", filepath.Join(t.TempDir(), "gate"))
	services.WriteString("  feeder: { run: \"%[1]s idle\", publishes: [events.raw] }\n")
	p := up(t, services.String())
	began := time.Now()
	for range events {
		p.feed(t, "event")
	}
	fed := time.Now()
	s := p.await(t, "a slow reader", func(s status.Snapshot) bool {
		return slices.ContainsFunc(s.Problems, func(one status.Problem) bool { return one.Code == "reader/slow" })
	})
	t.Logf("named %v after the last event, %v after the first", time.Since(fed), time.Since(began))
	p.await(t, "the nine have all", func(now status.Snapshot) bool {
		for i := range 9 {
			if service(now, fmt.Sprintf("quick%d", i)).Traffic.Edges["consumes events.raw"].Events != events {
				return false
			}
		}
		s = now
		return true
	})
	for _, one := range s.Problems {
		if one.Code == "reader/slow" && one.Service != "slow" {
			t.Errorf("%s is named: %s", one.Service, one.Title)
		}
	}
	for _, c := range s.Streams[0].Consumers {
		if behind := c.Lag + uint64(c.InFlight); c.Service == "slow" && behind != events || c.Service != "slow" && behind != 0 {
			t.Errorf("%s is %d behind", c.Service, behind)
		}
	}
}
