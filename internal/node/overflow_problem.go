package node

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// overflowRecent is how long after its last drop a watch counts as too slow: long enough to be seen by whoever looks
// because something is missing.
const overflowRecent = 30 * time.Second

// overflows names the instances whose watches drop live events now.
func (t *totals) overflows() []status.Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	var problems []status.Problem
	for key, total := range t.instances {
		for topic, at := range total.overflowed {
			if time.Since(at) > overflowRecent {
				continue
			}
			dropped := total.ended.Overflow[topic]
			for _, run := range total.runs {
				dropped += run.latest.Overflow[topic]
			}
			problems = append(problems, status.Problem{
				Code: "watch/overflow", Service: key.service, Since: at,
				Title: fmt.Sprintf("%s is too slow for %s and has dropped %d live events of it", instanceName(key.service, key.instance), topic, dropped),
				Fix:   "make its handler faster or give it more workers; a stream loses nothing that is not read at once",
			})
		}
	}
	slices.SortFunc(problems, func(a, b status.Problem) int { return cmp.Compare(a.Title, b.Title) })
	return problems
}
