package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// runs says whether a process is there and no zombie.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	p, err := parseStat(string(stat))
	return err == nil && !p.zombie
}

// cpuOf is the processor time that processes have used themselves, without the children they waited for.
func cpuOf(pids []int) (time.Duration, error) {
	var all time.Duration
	for _, pid := range pids {
		own, err := tree([]int{pid})
		if err != nil {
			return 0, err
		}
		all += own[0].self
	}
	return all, nil
}

// ownProcesses lists the processes of an executable whose arguments hold a text, oldest first.
func ownProcesses(executable, argument string) ([]int, error) {
	found := make(map[int][]string)
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if args[0] == executable && slices.Contains(args, argument) {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err != nil {
				return nil, err
			}
			found[pid] = args
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no process of %s", cmp.Or(argument, executable))
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// runOf is the time that the present threads of processes have run, to the nanosecond: the clock ticks of cpuOf are too
// coarse for those who do next to nothing.
func runOf(pids []int) (all time.Duration, err error) {
	for _, pid := range pids {
		paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // it ended meanwhile
			}
			var ran time.Duration
			if _, err := fmt.Sscan(string(text), &ran); err != nil {
				return 0, fmt.Errorf("read %s: %w", path, err)
			}
			all += ran
		}
	}
	return all, nil
}
