package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxEnvironBytes bounds what is read of one process's environment; Linux allows 2 MiB with the arguments by default.
const maxEnvironBytes = 2 << 20

// identity names a process for as long as the machine is up: a pid alone is used again.
type identity struct {
	pid   int
	start uint64 // field 22 of /proc/PID/stat: clock ticks since boot
}

// proc is a process as /proc shows it.
type proc struct {
	identity
	parent  int
	group   int
	session int
	name    string // of its program, cut to 15 bytes
	dead    bool   // a zombie: it only waits to be reaped
	exit    int    // its wait status once it is dead, as far as we may know
}

// processes returns all processes of the machine. Those that end meanwhile are left out.
func processes() ([]proc, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make([]proc, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // /proc has more than processes
		}
		if p, err := readProc(pid); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

func readProc(pid int) (proc, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, err
	}
	p, err := parseStat(stat)
	if err == nil && p.pid != pid {
		err = fmt.Errorf("stat of process %d names process %d", pid, p.pid)
	}
	return p, err
}

// parseStat reads a line of /proc/PID/stat. The program's name in it is in parentheses and may hold anything, so the
// fields are counted from the last parenthesis.
func parseStat(stat []byte) (proc, error) {
	open, closed := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || closed < open {
		return proc{}, errors.New("no program name in stat")
	}
	fields := bytes.Fields(stat[closed+1:])
	const first = 3 // fields[0] is field 3 of proc_pid_stat(5)
	if len(fields) <= 22-first {
		return proc{}, fmt.Errorf("stat has %d fields after the name", len(fields))
	}
	var bad error
	number := func(b []byte) int {
		n, err := strconv.Atoi(string(b))
		bad = errors.Join(bad, err)
		return n
	}
	p := proc{
		identity: identity{pid: number(bytes.TrimSpace(stat[:open]))},
		parent:   number(fields[4-first]),
		group:    number(fields[5-first]),
		session:  number(fields[6-first]),
		name:     string(stat[open+1 : closed]),
	}
	const exitCode = 52
	if len(fields) > exitCode-first {
		p.exit = number(fields[exitCode-first])
	}
	threads := number(fields[20-first])
	start, err := strconv.ParseUint(string(fields[22-first]), 10, 64)
	p.start = start
	// A process whose main thread alone has ended is a zombie by its state, and still runs.
	state := fields[0][0]
	p.dead = (state == 'Z' || state == 'X') && threads <= 1
	return p, errors.Join(bad, err)
}

// carriesRun says whether the environment that a process was started with has HOZO_RUN=run.
func carriesRun(pid int, run string) bool { return environRun(pid) == run }

// environRun returns HOZO_RUN of the environment that a process was started with, or "".
func environRun(pid int) string {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	defer f.Close()
	env, err := io.ReadAll(io.LimitReader(f, maxEnvironBytes))
	if err != nil {
		return ""
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if run, ok := bytes.CutPrefix(entry, []byte(runPrefix)); ok {
			return string(run)
		}
	}
	return ""
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}
