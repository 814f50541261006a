package keeper

import (
	"fmt"
	"math"
)

// Limits bound a process, and with the first four its whole tree. The zero Limits bound nothing.
//
// A limit of a resource (Nofile to AS) is both the soft and the hard one; Unlimited takes it off. Every process has it
// for itself, but NProc counts all of its user's.
type Limits struct {
	Memory     int64   `json:"memory,omitempty"`      // bytes; beyond it something of the tree is killed
	MemoryHigh int64   `json:"memory_high,omitempty"` // bytes; beyond it the tree is slowed down and its caches are taken
	CPU        float64 `json:"cpu,omitempty"`         // cores, as 1.5
	PIDs       int64   `json:"pids,omitempty"`        // processes and threads of the tree

	Nofile  *uint64 `json:"nofile,omitempty"`  // open files
	NProc   *uint64 `json:"nproc,omitempty"`   // processes and threads of its user
	Core    *uint64 `json:"core,omitempty"`    // bytes of a core file
	FSize   *uint64 `json:"fsize,omitempty"`   // bytes of a file that is written
	Stack   *uint64 `json:"stack,omitempty"`   // bytes
	Memlock *uint64 `json:"memlock,omitempty"` // bytes
	AS      *uint64 `json:"as,omitempty"`      // bytes of address space

	Nice        *int `json:"nice,omitempty"`          // -20 to 19
	OOMScoreAdj *int `json:"oom_score_adj,omitempty"` // -1000 to 1000
}

// Unlimited is a limit of a resource that is none.
const Unlimited = math.MaxUint64

// Unmet is a limit that this host does not keep.
type Unmet struct {
	Limit string `json:"limit"` // "memory"
	Why   string `json:"why"`
	Fix   string `json:"fix"`
}

// empty says whether nothing is bounded.
func (l Limits) empty() bool { return l == Limits{} }

// check finds values that no host could keep.
func (l Limits) check(name string) error {
	bad := func(limit string, value any) error {
		return misuse("bad-request", fmt.Sprintf("limit %s of %s cannot be %v", limit, name, value), "")
	}
	switch {
	case l.Memory < 0:
		return bad("memory", l.Memory)
	case l.MemoryHigh < 0:
		return bad("memory_high", l.MemoryHigh)
	case l.PIDs < 0:
		return bad("pids", l.PIDs)
	case !(l.CPU >= 0 && l.CPU < 1<<20):
		return bad("cpu", l.CPU)
	case l.Nice != nil && (*l.Nice < -20 || *l.Nice > 19):
		return bad("nice", *l.Nice)
	case l.OOMScoreAdj != nil && (*l.OOMScoreAdj < -1000 || *l.OOMScoreAdj > 1000):
		return bad("oom_score_adj", *l.OOMScoreAdj)
	}
	return nil
}
