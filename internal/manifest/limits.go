package manifest

import (
	"fmt"
	"math"
	"strconv"
)

// maxPIDs is the most processes and threads that Linux can count (PID_MAX_LIMIT).
const maxPIDs = 1 << 22

func limitKeys() []key[Limits] {
	return []key[Limits]{
		field("memory", "Memory of an instance with all that it starts; beyond it the kernel kills something of it.", size(1<<20), func(l *Limits) *Bytes { return &l.Memory }),
		field("memory_high", "Memory beyond which it is slowed down and its caches are taken. Needs cgroup version 2.", size(1<<20), func(l *Limits) *Bytes { return &l.MemoryHigh }),
		field("cpu", "Cores, as 0.5 or 2.", cores(), func(l *Limits) *float64 { return &l.CPU }),
		field("pids", "Processes and threads of an instance with all that it starts.", whole(1, maxPIDs), func(l *Limits) *int { return &l.PIDs }),
		field("nofile", "Open files of a process, or unlimited.", count(3), func(l *Limits) **uint64 { return &l.Nofile }),
		field("nproc", "Processes and threads of its user, or unlimited.", count(1), func(l *Limits) **uint64 { return &l.NProc }),
		field("core", "Size of a core file, or unlimited; 0 writes none.", sizeOrUnlimited(0), func(l *Limits) **uint64 { return &l.Core }),
		field("fsize", "Size of a file that it writes, or unlimited.", sizeOrUnlimited(0), func(l *Limits) **uint64 { return &l.FSize }),
		field("stack", "Size of a stack, or unlimited.", sizeOrUnlimited(64<<10), func(l *Limits) **uint64 { return &l.Stack }),
		field("memlock", "Memory that it may lock, or unlimited.", sizeOrUnlimited(0), func(l *Limits) **uint64 { return &l.Memlock }),
		field("as", "Address space of a process, or unlimited.", sizeOrUnlimited(1<<20), func(l *Limits) **uint64 { return &l.AS }),
		field("nice", "Priority, from -20 (first) to 19 (last).", optional(whole(-20, 19), zero[int]), func(l *Limits) **int { return &l.Nice }),
		field("oom_score_adj", "Who is killed when the machine has no memory left: from -1000 (never) to 1000 (first).",
			optional(whole(-1000, 1000), zero[int]), func(l *Limits) **int { return &l.OOMScoreAdj }),
	}
}

func zero[V any]() V {
	var none V
	return none
}

// cores is a share of the processors.
func cores() shape[float64] {
	const least, most = 0.01, 4096
	want := fmt.Sprintf("a number of cores from %v to %d", least, most)
	return shape[float64]{
		schema{"type": "number", "minimum": least, "maximum": most},
		func(d *decoder, n *node, path string, into *float64) {
			v, err := strconv.ParseFloat(n.text, 64)
			if n.kind != kindNumber || err != nil || !(v >= least && v <= most) {
				d.add(n.at, "bad-number", fmt.Sprintf("%s must be %s, not %s", path, want, n), "write "+want)
				return
			}
			*into = v
		},
	}
}

// count is a number from least upwards, or unlimited.
func count(least int) shape[*uint64] {
	return orUnlimited(whole(least, math.MaxInt32))
}

func sizeOrUnlimited(least Bytes) shape[*uint64] { return orUnlimited(size(least)) }

func orUnlimited[V int | Bytes](of shape[V]) shape[*uint64] {
	return shape[*uint64]{
		schema{"anyOf": []any{of.schema, schema{"const": "unlimited"}}},
		func(d *decoder, n *node, path string, into **uint64) {
			value := uint64(Unlimited)
			if n.kind != kindText || n.text != "unlimited" {
				before := len(d.found)
				var v V
				of.read(d, n, path, &v)
				if len(d.found) > before {
					return
				}
				value = uint64(v)
			}
			*into = &value
		},
	}
}

// limits finds limits that contradict each other.
func (c *checker) limits(s *Service) {
	l := s.Limits
	if l.Memory > 0 && l.MemoryHigh >= l.Memory {
		c.add(c.value("services", s.Name, "limits", "memory_high"), "bad-limits",
			fmt.Sprintf("service %q is slowed down at %s but killed at %s already", s.Name, l.MemoryHigh, l.Memory),
			"lower limits.memory_high, or raise limits.memory")
	}
}
