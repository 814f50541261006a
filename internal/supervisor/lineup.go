package supervisor

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// lineup is what an earlier supervisor left of one instance.
type lineup struct {
	current  keeper.Process  // that serves, or ran last
	beside   *keeper.Process // alive, or nil
	draining bool            // beside has been asked to end; else it was to take over
}

// lineUp tells the processes of one instance apart; there is at least one. Of two that live the newer one was starting
// beside the older one, unless the older one had been asked to end: then it had taken over.
func lineUp(processes []keeper.Process, asked func(run string) bool) lineup {
	sorted := slices.Clone(processes)
	slices.SortFunc(sorted, func(a, b keeper.Process) int {
		return cmp.Or(cmp.Compare(generation(b), generation(a)), b.Started.Compare(a.Started))
	})
	var living []keeper.Process // the newest first
	for _, p := range sorted {
		if p.Exit == nil {
			living = append(living, p)
		}
	}
	switch {
	case len(living) == 0:
		return lineup{current: sorted[0]}
	case len(living) == 1:
		return lineup{current: living[0]}
	case asked(living[1].Run):
		return lineup{living[0], &living[1], true}
	default:
		return lineup{living[1], &living[0], asked(living[0].Run)}
	}
}

func generation(p keeper.Process) int {
	n, err := strconv.Atoi(p.Labels[labelGen])
	if err != nil {
		return 0 // of an older version: before every other
	}
	return n
}
