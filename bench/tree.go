package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ is 100 on every Linux port that Go runs on.
const clockTick = time.Second / 100

// process is a line of /proc/PID/stat.
type process struct {
	pid, parent int
	zombie      bool
	self        time.Duration // user and system
	cpu         time.Duration // the same, its waited children included
}

// tree returns the processes of roots and everything below them. Ended ones are counted by the parent that waited for
// them; a process that was orphaned is counted as long as its new parent is in the tree.
func tree(roots []int) ([]process, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children, known := make(map[int][]process), make(map[int]process)
	for _, path := range paths {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		p, err := parseStat(string(stat))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		known[p.pid] = p
		children[p.parent] = append(children[p.parent], p)
	}
	var all []process
	for _, pid := range roots {
		root, ok := known[pid]
		if !ok {
			return nil, fmt.Errorf("process %d is gone", pid)
		}
		all = append(all, root)
	}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].pid]...)
	}
	return all, nil
}

// usage is processor time by program.
type usage map[string]time.Duration

// treeCPU is the processor time that the trees of roots have used so far.
func treeCPU(roots []int) (usage, error) {
	all, err := tree(roots)
	used := make(usage)
	for _, p := range all {
		used[p.program()] += p.cpu
	}
	return used, err
}

func (u usage) sum() (all time.Duration) {
	for _, used := range u {
		all += used
	}
	return all
}

// since subtracts what was used before.
func (u usage) since(before usage) usage {
	used := make(usage)
	for name, now := range u {
		used[name] = now - before[name]
	}
	return used
}

// program is what the process runs: the last part of its path and the first arguments that tell it from others.
func (p process) program() string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	if err != nil {
		return "ended"
	}
	words := strings.FieldsFunc(string(line), func(r rune) bool { return r == 0 || r == ' ' })
	if len(words) == 0 {
		return "ended"
	}
	name := strings.TrimSuffix(filepath.Base(words[0]), ":")
	for i, word := range words[1:] {
		switch {
		case name == "postgres":
			return name
		case word == "-m" && i+2 < len(words):
			return name + " " + words[i+2]
		case strings.HasPrefix(word, "-"), strings.HasPrefix(word, "/"), strings.ContainsRune(word, ':'):
			return name
		default:
			name += " " + word
			if i == 1 {
				return name
			}
		}
	}
	return name
}

// parseStat reads "pid (name) state ppid …". The name may hold spaces and parentheses: fields are counted from its end.
func parseStat(stat string) (process, error) {
	head, tail, ok := strings.Cut(stat, " ")
	end := strings.LastIndexByte(tail, ')')
	if !ok || end < 0 {
		return process{}, fmt.Errorf("malformed stat %q", stat)
	}
	fields := strings.Fields(tail[end+1:])
	if len(fields) < 15 {
		return process{}, fmt.Errorf("stat has %d fields after the name", len(fields))
	}
	pid, err := strconv.Atoi(head)
	if err != nil {
		return process{}, fmt.Errorf("pid: %w", err)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, fmt.Errorf("parent: %w", err)
	}
	p := process{pid: pid, parent: parent, zombie: fields[0] == "Z"}
	for i, field := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return process{}, fmt.Errorf("time: %w", err)
		}
		p.cpu += time.Duration(ticks) * clockTick
		if i < 2 {
			p.self = p.cpu
		}
	}
	return p, nil
}

// memoryOf reads a figure in kB of /proc/PID/FILE, in MB.
func memoryOf(pid int, file, key string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kilobytes, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kilobytes * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no %s in %s of process %d", key, file, pid)
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic("bench: internal error: getrusage of oneself: " + err.Error())
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
