package node

import (
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

func TestADiskThatCannotKeepItsWordIsAProblem(t *testing.T) {
	t.Parallel()
	m := &manifest.Manifest{Streams: []manifest.Stream{
		{Name: "orders", Durability: manifest.DurabilityPower, Frames: true},
		{Name: "clicks", Durability: manifest.DurabilityProcess, Frames: true},
	}}
	for _, c := range []struct {
		name string
		cost wire.SyncCost
		want string
	}{
		{"a disk", wire.SyncCost{Syncs: 1000, P50: time.Millisecond}, ""},
		{"a fast disk", wire.SyncCost{Syncs: 1000, P50: 30 * time.Microsecond}, ""},
		{"a memory file system", wire.SyncCost{Syncs: 1, P50: time.Millisecond, Memory: true}, "stream/memory-file-system"},
		{"a disk that lies", wire.SyncCost{Syncs: 1000, P50: 2 * time.Microsecond}, "stream/implausible-sync"},
		{"too early to say", wire.SyncCost{Syncs: 3, P50: 2 * time.Microsecond}, ""},
	} {
		got := syncProblems(m, map[string]cost{"orders": {&c.cost}, "clicks": {&c.cost}})
		switch {
		case c.want == "" && len(got) != 0:
			t.Errorf("%s is a problem: %+v", c.name, got)
		case c.want != "" && (len(got) != 1 || got[0].Code != c.want):
			t.Errorf("%s gives %+v, want one %s", c.name, got, c.want)
		}
	}
	if got := syncProblems(m, nil); len(got) != 0 {
		t.Errorf("nothing known is a problem: %+v", got)
	}
}

func streamWith(full string) manifest.Stream { return manifest.Stream{Name: "orders", Full: full} }
