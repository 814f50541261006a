package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
)

// limitsOf turns a service's limits into an instance's. What this kernel can never keep is a fault; what only the rights
// or the cgroups of the keeper stand in the way of shows in the status.
func limitsOf(s manifest.Service) (plan.Limits, error) {
	l := s.Limits
	if l.Nofile != nil {
		// A process with more could not be started, not even by root.
		if most, ok := kernelNumber("/proc/sys/fs/nr_open"); ok && *l.Nofile > most {
			return plan.Limits{}, &fault.Error{
				Code: "node/bad-limit", Kind: fault.Misuse,
				What: fmt.Sprintf("service %q wants %s open files, this kernel allows a process %d", s.Name, inWords(*l.Nofile), most),
				Fix:  "lower limits.nofile, or raise fs.nr_open by sysctl",
			}
		}
	}
	return plan.Limits{
		Memory: int64(l.Memory), MemoryHigh: int64(l.MemoryHigh), CPU: l.CPU, PIDs: int64(l.PIDs),
		Nofile: l.Nofile, NProc: l.NProc, Core: l.Core, FSize: l.FSize, Stack: l.Stack, Memlock: l.Memlock, AS: l.AS,
		Nice: l.Nice, OOMScoreAdj: l.OOMScoreAdj,
	}, nil
}

func kernelNumber(path string) (uint64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

func inWords(limit uint64) string {
	if limit == manifest.Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(limit, 10)
}
