package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// runTool calls a command line tool and returns what it said only as an error.
func runTool(ctx context.Context, argv ...string) error {
	said, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv[:2], " "), err, strings.TrimSpace(string(said[:min(len(said), 2000)])))
	}
	return nil
}
