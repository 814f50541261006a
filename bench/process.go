package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// manager is a process manager that runs the same programs as the others.
type manager interface {
	name() string
	// start writes the configuration of the programs into dir and has them all started.
	start(ctx context.Context, dir string, programs []program) error
	stop(ctx context.Context) error
	status(ctx context.Context) error // one call of its command line tool
	pids() ([]int, error)             // its own processes
	parents() ([]int, error)          // those of pids that cannot be replaced while the programs run
	// log is the path of a program's log, and what the manager writes before each line.
	log(program string) (path, prefix string)
}

// program is a child of process/child.c under a manager.
type program struct {
	name string
	argv []string
}

const (
	// ordinary is the number of programs at which everything is measured.
	ordinary = 200
	// quickKills and kills are how many programs are killed a round, each of them once.
	quickKills, kills = 8, 50
	// settleTime is how long a program must run before supervisord counts it as started (startsecs, 1 s by default).
	settleTime = 1200 * time.Millisecond
	// idleTime is how long the managers are watched doing nothing.
	quickIdle, idleTime = time.Second, 5 * time.Second
	// floodBytes is what one program writes to its log. Rotation is off.
	quickFlood, floodBytes = 128_000_000, 512_000_000
	// processPatience bounds every wait for programs. The slowest seen, a thousand starts, is a fifth of it.
	processPatience = time.Minute
)

var processMetrics = []metric{
	{"respawn p50", "ms", "kill -9 of a program to main of the next one, 200 programs, one at a time"},
	{"respawn p99", "ms", "the same"},
	{"start", "ms", "command to main of the last of 200 programs"},
	{"stop", "ms", "command to the end of the last of 200 programs and of the manager"},
	{"status", "ms", "one call of the command line tool, 200 programs"},
	{"idle CPU", "% core", "own processes, 200 idle programs"},
	{"RSS parent, 10", "MB", "the process that is the programs' parent, 10 programs"},
	{"RSS parent, 200", "MB", "the same, 200 programs"},
	{"RSS parent, 1000", "MB", "the same, 1000 programs (not with -quick)"},
	{"PSS all, 200", "MB", "own processes together, shared pages counted once, 200 programs"},
	{"log capture", "MB/s", "one program writes lines of 100 B, until the last is in its log"},
	{"log CPU", "s/GB", "own processes meanwhile"},
}

// processes measures process managers that each run the same programs, one manager at a time.
func processes(ctx context.Context, s *session) error {
	s.report.Area = "process"
	child := filepath.Join(s.dir, "child")
	if _, err := output(ctx, s.root, "cc", "-O2", "-o", child, filepath.Join("bench", "process", "child.c")); err != nil {
		return fmt.Errorf("build the program that is managed: %w", err)
	}
	all, err := s.managers(ctx)
	if err != nil {
		return err
	}
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.name()
	}
	p := &processRace{session: s, child: child, grid: newGrid(processMetrics, names...)}
	s.report.Grid = p.grid
	rounds := pick(s.quick, 1, s.rounds)
	s.report.About = append(s.report.About, fmt.Sprintf("%d rounds; programs are one C program that waits (bench/process/child.c)", rounds))
	for round := range rounds {
		for _, i := range order(len(all), round) {
			s.say("round %d: %s", round+1, all[i].name())
			if err := p.turn(ctx, all[i], round); err != nil {
				return fmt.Errorf("%s: %w", all[i].name(), err)
			}
		}
	}
	s.report.Ratios = processRatios(p.grid)
	return nil
}

// managers returns those that were asked for; process-compose only where bench/setup.sh could build it.
func (s *session) managers(ctx context.Context) ([]manager, error) {
	wanted := func(name string) bool { return len(s.only) == 0 || slices.Contains(s.only, name) }
	var all []manager
	if wanted(hozoName) {
		s.say("building hozo")
		bin := filepath.Join(s.dir, "bin", "hozo")
		if _, err := output(ctx, s.root, "go", "build", "-o", bin, "./cmd/hozo"); err != nil {
			return nil, fmt.Errorf("build hozo: %w", err)
		}
		all = append(all, &hozoManager{bin: bin})
	}
	if wanted(supervisordName) {
		all = append(all, &supervisord{})
	}
	if compose := filepath.Join(s.root, ".tools", "process-compose"); wanted(composeName) {
		if _, err := os.Stat(compose); err == nil {
			all = append(all, &processCompose{bin: compose})
		} else {
			s.report.About = append(s.report.About, "process-compose is not built (bench/setup.sh): left out")
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no contender %s: there are %s, %s and %s", strings.Join(s.only, ", "), hozoName, supervisordName, composeName)
	}
	return all, nil
}

// processRace is the rounds of the area.
type processRace struct {
	session *session
	child   string // path of the program
	grid    *grid
}

// turn runs one manager with every number of programs.
func (p *processRace) turn(ctx context.Context, m manager, round int) error {
	sizes := pick(p.session.quick, []int{10, ordinary}, []int{10, ordinary, 1000})
	for _, n := range sizes {
		dir := filepath.Join(p.session.dir, fmt.Sprintf("%s-%d-%d", m.name(), round, n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := p.run(ctx, m, dir, n); err != nil {
			return fmt.Errorf("with %d programs: %w", n, err)
		}
	}
	return nil
}

// run measures m with n programs.
func (p *processRace) run(ctx context.Context, m manager, dir string, n int) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*processPatience, errors.New("too slow"))
	defer cancel()
	heard, err := hear(filepath.Join(dir, "hello"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, heard.close()) }()
	amount := pick(p.session.quick, quickFlood, floodBytes)
	programs := make([]program, n)
	for i := range programs {
		name := fmt.Sprintf("p%d", i+1)
		programs[i] = program{name, []string{p.child, filepath.Join(dir, "hello"), name, strconv.Itoa(amount)}}
	}
	stopped := false
	defer func() {
		if !stopped { // a failure on the way: leave nothing running
			late, done := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
			defer done()
			err = errors.Join(err, m.stop(late))
		}
	}()
	began := monotonic()
	if err := m.start(ctx, dir, programs); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := heard.await(ctx, "the first start of every program", func(last map[string]hello) bool { return len(last) == n }); err != nil {
		return err
	}
	var latest time.Duration
	var pids []int
	for _, one := range programs {
		h := heard.of(one.name)
		latest, pids = max(latest, h.at), append(pids, h.pid)
	}
	time.Sleep(settleTime)
	if err := p.memory(m, n); err != nil {
		return err
	}
	if n == ordinary {
		p.grid.add(m.name(), "start", milliseconds(latest-began))
		if err := p.ordinary(ctx, m, heard, programs, amount); err != nil {
			return err
		}
		pids = pids[:0]
		for _, one := range programs {
			pids = append(pids, heard.of(one.name).pid)
		}
	}
	own, err := m.pids()
	if err != nil {
		return err
	}
	began = monotonic()
	stopped = true
	if err := m.stop(ctx); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	err = poll(ctx, "the end of every program", 2*time.Millisecond, func() (bool, error) {
		return !slices.ContainsFunc(pids, runs) && !slices.ContainsFunc(own, runs), nil
	})
	if n == ordinary {
		p.grid.add(m.name(), "stop", milliseconds(monotonic()-began))
	}
	return err
}

// ordinary measures what is measured with 200 programs.
func (p *processRace) ordinary(ctx context.Context, m manager, heard *hellos, programs []program, amount int) error {
	if err := p.idle(m); err != nil {
		return err
	}
	for range pick(p.session.quick, 5, 20) {
		began := time.Now()
		if err := m.status(ctx); err != nil {
			return fmt.Errorf("status: %w", err)
		}
		p.grid.add(m.name(), "status", milliseconds(time.Since(began)))
	}
	if err := p.respawn(ctx, m, heard, programs[1:]); err != nil {
		return err
	}
	return p.flood(ctx, m, heard, programs[0], amount)
}

// idle measures the processor time of a manager that has nothing to do.
func (p *processRace) idle(m manager) error {
	pids, err := m.pids()
	if err != nil {
		return err
	}
	before, err := cpuOf(pids)
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(pick(p.session.quick, quickIdle, idleTime))
	after, err := cpuOf(pids)
	p.grid.add(m.name(), "idle CPU", 100*(after-before).Seconds()/time.Since(began).Seconds())
	return err
}

// respawn kills programs one after the other, each when the one before is back: a second death would wake a manager that
// looks once a second.
func (p *processRace) respawn(ctx context.Context, m manager, heard *hellos, programs []program) error {
	victims := programs[:pick(p.session.quick, quickKills, kills)]
	var took sample
	for _, victim := range victims {
		dead, at := heard.of(victim.name).pid, monotonic()
		if err := syscall.Kill(dead, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", victim.name, err)
		}
		err := heard.await(ctx, victim.name+" to be back", func(last map[string]hello) bool { return last[victim.name].pid != dead })
		if err != nil {
			return err
		}
		took = append(took, milliseconds(heard.of(victim.name).at-at))
	}
	p.grid.add(m.name(), "respawn p50", took.quantile(0.5))
	p.grid.add(m.name(), "respawn p99", took.quantile(0.99))
	want := len(programs) + 1 + len(victims)
	if got := heard.heard(); got != want { // each victim was started once more, nothing else was
		return fmt.Errorf("%w: programs started %d times, %d expected", errWrong, got, want)
	}
	p.session.report.Checks = append(p.session.report.Checks,
		fmt.Sprintf("%s: %d programs killed, each is back once, no other was started again", m.name(), len(victims)))
	return nil
}

// flood has a program write a lot and waits until all of it is in its log, which is then checked line by line.
func (p *processRace) flood(ctx context.Context, m manager, heard *hellos, one program, amount int) error {
	pids, err := m.pids()
	if err != nil {
		return err
	}
	before, err := cpuOf(pids)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := syscall.Kill(heard.of(one.name).pid, syscall.SIGUSR1); err != nil {
		return err
	}
	err = heard.await(ctx, "the program to have written", func(last map[string]hello) bool { return last[one.name].what == "flood" })
	if err != nil {
		return err
	}
	path, prefix := m.log(one.name)
	size := int64(amount) / 100 * int64(100+len(prefix))
	err = poll(ctx, "the output in its log", 2*time.Millisecond, func() (bool, error) {
		info, err := os.Stat(path)
		return err == nil && info.Size() >= size, err
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuOf(pids)
	if err != nil {
		return err
	}
	p.grid.add(m.name(), "log capture", megabytes(int64(amount), took))
	p.grid.add(m.name(), "log CPU", (after-before).Seconds()*1e9/float64(amount))
	lines, err := countFloodLines(path, prefix)
	if err != nil {
		return err
	}
	if lines != amount/100 {
		return fmt.Errorf("%w: %d lines are in the log, %d were written", errWrong, lines, amount/100)
	}
	p.session.report.Checks = append(p.session.report.Checks, fmt.Sprintf("%s: all %d lines are in the log, each whole", m.name(), lines))
	return os.Truncate(path, 0) // room for the next contender
}

// memory reads what a manager holds with n programs.
func (p *processRace) memory(m manager, n int) error {
	parents, err := m.parents()
	if err != nil {
		return err
	}
	var most float64
	for _, pid := range parents {
		rss, err := memoryOf(pid, "status", "VmRSS:")
		if err != nil {
			return err
		}
		most = max(most, rss)
	}
	p.grid.add(m.name(), fmt.Sprintf("RSS parent, %d", n), most)
	if n != ordinary {
		return nil
	}
	pids, err := m.pids()
	if err != nil {
		return err
	}
	var sum float64
	for _, pid := range pids {
		pss, err := memoryOf(pid, "smaps_rollup", "Pss:")
		if err != nil {
			return err
		}
		sum += pss
	}
	p.grid.add(m.name(), "PSS all, 200", sum)
	return nil
}

// processRatios compares ours with Supervisor, and with itself: a program more must cost no more when there are many.
func processRatios(g *grid) []ratio {
	var all []ratio
	by := func(metric string) (ours, theirs sample) {
		return g.get(hozoName, metric), g.get(supervisordName, metric)
	}
	compare := func(name, metric string, bar float64, lower bool) {
		ours, theirs := by(metric)
		if len(ours) == 0 || len(theirs) == 0 {
			return
		}
		r := ratio{name, ours.over(theirs).median(), bar}
		if lower {
			r.Value = theirs.over(ours).median()
		}
		all = append(all, r)
	}
	compare("process_respawn_p50_vs_supervisord", "respawn p50", 100, true)
	compare("process_parent_rss_vs_supervisord", "RSS parent, 200", 1, true)
	compare("process_log_capture_vs_supervisord", "log capture", 5, false)
	few, some, many := g.get(hozoName, "RSS parent, 10").median(), g.get(hozoName, "RSS parent, 200").median(), g.get(hozoName, "RSS parent, 1000").median()
	if many > 0 && many > some && some > few {
		// 0.8: the garbage collector's share grows with the heap by steps, so equal costs differ by some percent.
		all = append(all, ratio{"process_rss_per_child_flat", (some - few) / (ordinary - 10) / ((many - some) / (1000 - ordinary)), 0.8})
	}
	return all
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

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

// countFloodLines counts the lines of a log that are whole: prefix and 99 times x.
func countFloodLines(path, prefix string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	whole, lines := 0, bufio.NewScanner(file)
	want := []byte(prefix + strings.Repeat("x", 99))
	for lines.Scan() {
		if bytes.Equal(lines.Bytes(), want) {
			whole++
		}
	}
	return whole, lines.Err()
}

// runTool calls a command line tool and returns what it said only as an error.
func runTool(ctx context.Context, argv ...string) error {
	said, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv[:2], " "), err, strings.TrimSpace(string(said[:min(len(said), 2000)])))
	}
	return nil
}
