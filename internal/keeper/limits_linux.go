package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cpuPeriod is the time in which a share of the processors is counted, in microseconds: the kernel's default.
const cpuPeriod = 100_000

// knob is one file of a controller. The first of names that is there is written.
type knob struct {
	limit, controller string
	v1, v2            string // file; empty: that version has none
	value             string
	set               bool // else the limit is to be taken off, if the file is there
}

// knobs are the limits that cgroups keep.
func (l Limits) knobs() []knob {
	number := func(n int64, v2 bool) string {
		switch {
		case n > 0:
			return strconv.FormatInt(n, 10)
		case v2:
			return "max"
		}
		return "-1"
	}
	both := func(limit, controller, v1, v2 string, n int64) []knob {
		return []knob{
			{limit: limit, controller: controller, v1: v1, value: number(n, false), set: n > 0},
			{limit: limit, controller: controller, v2: v2, value: number(n, true), set: n > 0},
		}
	}
	all := both("memory", "memory", "memory.limit_in_bytes", "memory.max", l.Memory)
	all = append(all, knob{limit: "memory_high", controller: "memory", v2: "memory.high", value: number(l.MemoryHigh, true), set: l.MemoryHigh > 0})
	quota := int64(math.Ceil(l.CPU * cpuPeriod))
	all = append(all, knob{limit: "cpu", controller: "cpu", v1: "cpu.cfs_quota_us", value: number(quota, false), set: quota > 0},
		knob{limit: "cpu", controller: "cpu", v2: "cpu.max", value: fmt.Sprintf("%s %d", number(quota, true), cpuPeriod), set: quota > 0})
	all = append(all, knob{limit: "pids", controller: "pids", v1: "pids.max", value: strings.Replace(number(l.PIDs, false), "-1", "max", 1), set: l.PIDs > 0},
		knob{limit: "pids", controller: "pids", v2: "pids.max", value: number(l.PIDs, true), set: l.PIDs > 0})
	return all
}

// limited makes a group keep limits as far as this host can. It may return another group, as one is made where there was
// none.
func (g *groups) limited(of *group, name, run string, l Limits) (*group, []Unmet) {
	var unmet []Unmet
	met, tried := map[string]bool{}, map[string]error{}
	for _, k := range l.knobs() {
		dir := ""
		switch {
		case k.v2 != "" && of.holds() && of.v2:
			if isFile(filepath.Join(of.dir, k.v2)) {
				dir = of.dir
			} else if k.set && g.enable(k.controller) == nil {
				dir = of.dir
			}
			k.v1 = k.v2
		case k.v1 != "":
			if k.set && !met[k.limit] && !g.unified(k.controller) {
				made, err := g.limitGroup(of, k.controller, name, run)
				if err != nil {
					tried[k.limit] = err
					continue
				}
				of = made
			}
			dir = of.limitDir(k.controller)
		}
		if dir == "" {
			continue
		}
		if err := writeGroup(dir, k.v1, k.value); err != nil {
			tried[k.limit] = err
		} else {
			met[k.limit] = true
		}
	}
	for _, k := range l.knobs() {
		if k.set && !met[k.limit] && !slices.ContainsFunc(unmet, func(u Unmet) bool { return u.Limit == k.limit }) {
			unmet = append(unmet, g.unmet(k, tried[k.limit]))
		}
	}
	return of, unmet
}

// unified says whether version 2 has a controller for this keeper's groups.
func (g *groups) unified(controller string) bool {
	base, ok := g.mounted[hierarchyV2]
	if !ok || g.trees != TreesCgroup {
		return false
	}
	have, err := readGroup(base, "cgroup.controllers")
	return err == nil && slices.Contains(strings.Fields(have), controller)
}

// enable gives a controller of version 2 to the groups of incarnations.
func (g *groups) enable(controller string) error {
	if !g.unified(controller) {
		return fs.ErrNotExist
	}
	base := g.mounted[hierarchyV2]
	for _, dir := range []string{base, filepath.Join(base, g.name)} {
		have, err := readGroup(dir, "cgroup.subtree_control")
		if err != nil {
			return err
		}
		if slices.Contains(strings.Fields(have), controller) {
			continue
		}
		if err := writeGroup(dir, "cgroup.subtree_control", "+"+controller); err != nil {
			return err
		}
	}
	return nil
}

// limitGroup makes the version 1 group of a controller for an incarnation.
func (g *groups) limitGroup(of *group, controller, name, run string) (*group, error) {
	if of.limitDir(controller) != "" {
		return of, nil
	}
	project, err := g.project(controller)
	if err != nil {
		return of, err
	}
	l := limitGroup{controller, filepath.Join(project, groupName(name, run)), g.mounted[controller]}
	if err := os.Mkdir(l.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return of, err
	}
	if of == nil {
		of = &group{}
	}
	of.limits = append(of.limits, l)
	return of, nil
}

func (g *group) limitDir(controller string) string {
	if g != nil {
		for _, l := range g.limits {
			if l.controller == controller {
				return l.dir
			}
		}
	}
	return ""
}

// unmet says why a limit is not kept and what would help.
func (g *groups) unmet(k knob, err error) Unmet {
	u := Unmet{Limit: k.limit, Fix: "run Hozo as root, or as a systemd service with Delegate=yes and DelegateSubgroup=main"}
	_, v1 := g.mounted[k.controller]
	switch {
	case k.limit == "memory_high" && v1:
		u.Why, u.Fix = "the memory controller of this host is of cgroup version 1, which has no such limit", "boot with cgroup version 2, or use memory"
	case err != nil:
		u.Why = fmt.Sprintf("the %s controller refuses it: %v", k.controller, err)
	case g.unified(k.controller):
		err := g.enable(k.controller)
		u.Why = fmt.Sprintf("the %s controller cannot be used below the keeper's own cgroup %s: %v", k.controller, g.mounted[hierarchyV2], err)
	default:
		u.Why = fmt.Sprintf("this host gives the keeper no %s controller of cgroups", k.controller)
	}
	return u
}

// oomKills is how many processes of a group the kernel has killed for want of memory.
func (g *group) oomKills() uint64 {
	if g == nil {
		return 0
	}
	if g.holds() && g.v2 {
		if n, ok := counterOf(g.dir, "memory.events", "oom_kill"); ok {
			return n
		}
	}
	if dir := g.limitDir("memory"); dir != "" {
		n, _ := counterOf(dir, "memory.oom_control", "oom_kill")
		return n
	}
	return 0
}

// resources are the limits that belong to a process, with their numbers.
func (l Limits) resources() []resource {
	var all []resource
	for _, r := range []resource{
		{"nofile", unix.RLIMIT_NOFILE, l.Nofile},
		{"nproc", unix.RLIMIT_NPROC, l.NProc},
		{"core", unix.RLIMIT_CORE, l.Core},
		{"fsize", unix.RLIMIT_FSIZE, l.FSize},
		{"stack", unix.RLIMIT_STACK, l.Stack},
		{"memlock", unix.RLIMIT_MEMLOCK, l.Memlock},
		{"as", unix.RLIMIT_AS, l.AS}, // last: with little of it nothing else works any more
	} {
		if r.Value != nil {
			all = append(all, r)
		}
	}
	return all
}

// resource is a limit by setrlimit(2).
type resource struct {
	Name   string
	Number int
	Value  *uint64
}

// ownSettings says whether a program needs somebody who sets something between fork and exec.
func (l Limits) ownSettings() bool {
	return len(l.resources()) > 0 || l.Nice != nil || l.OOMScoreAdj != nil
}
