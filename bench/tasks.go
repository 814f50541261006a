package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The contenders of the area, beside jetstreamName and hozoName.
const (
	asynqName  = "asynq"
	riverName  = "River"
	celeryName = "Celery"
	rqName     = "RQ"
	powerName  = "hozo power"
)

var taskMetrics = []metric{
	{"enqueue", "k/s", "tasks that one program has stored while nobody works"},
	{"run", "k/s", "those tasks, done by one worker that is started then"},
	{"end to end", "k/s", "from the first call to the last task done, producer and worker at once; three times a round"},
	{"1 ms", "k/s", "the same, each task waits 1 ms, 64 at once"},
	{"many", "k/s", "the same without waiting: EnqueueMany, and a handler of batches"},
	{"CPU", "µs", "of all processes, a task end to end"},
	{"pickup p50", "µs", "from the call to the handler, 500 tasks a second, open loop"},
	{"pickup p99", "µs", "the same"},
	{"pending", "k/s", "end to end while 1,000,000 tasks wait in the queue before them"},
}

// tasker is a contender.
type tasker struct {
	name    string
	argv    []string
	count   int  // tasks of a turn, quick ones
	server  bool // argv has a server
	args    []string
	redis   bool
	sql     bool
	python  bool
	bulk    bool // there is a call for many
	pending bool // it is measured with many waiting

	running *speaker // the server
	url     string
	dir     string
	broker  interface {
		pids() []int
		stop(sig syscall.Signal) error
	}
}

func (s *session) taskers() []*tasker {
	peer := filepath.Join(s.dir, "bin", "peer")
	python := filepath.Join(s.root, "bench", "tasks", "tasks_peer.py")
	all := []*tasker{
		{name: asynqName, argv: []string{peer, "asynq"}, count: 10_000, redis: true},
		{name: riverName, argv: []string{peer, "river"}, count: 6_000, server: true, sql: true},
		{name: celeryName, argv: []string{python3, python, "celery"}, count: 1_500, redis: true, python: true},
		{name: rqName, argv: []string{python3, python, "rq"}, count: 100, redis: true, python: true},
		{name: jetstreamName, argv: []string{peer, "jetstream"}, count: 60_000, server: true},
		{name: hozoName, argv: []string{peer, "hozo"}, count: 60_000, server: true, bulk: true, pending: true},
		{name: powerName, argv: []string{peer, "hozo"}, count: 30_000, server: true, args: []string{"power=1"}},
	}
	return slices.DeleteFunc(all, func(m *tasker) bool { return len(s.only) > 0 && !slices.Contains(s.only, m.name) })
}

// tasks measures queues of tasks, one contender at a time.
func tasks(ctx context.Context, s *session) error {
	s.report.Area = "tasks"
	if err := os.Mkdir(filepath.Join(s.dir, "bin"), 0o700); err != nil {
		return err
	}
	all := s.taskers()
	if len(all) == 0 {
		return fmt.Errorf("no contender %s", strings.Join(s.only, ", "))
	}
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.name
	}
	s.say("building programs")
	if _, err := output(ctx, filepath.Join(s.root, "bench", "tasks"), "go", "build", "-o", filepath.Join(s.dir, "bin", "peer"), "./peer"); err != nil {
		return fmt.Errorf("build the Go programs: %w", err)
	}
	r := &taskRace{session: s, grid: newGrid(taskMetrics, names...)}
	s.report.Grid = r.grid
	rounds := pick(s.quick, 1, s.rounds)
	s.report.About = append(s.report.About,
		fmt.Sprintf("%d rounds; producer, worker and server are processes of their own, over TCP on loopback; arguments are 60 B of JSON", rounds),
		asynqName+", "+celeryName+", "+rqName+": Redis, appendonly everysec; survive: kill -9 of every process; "+asynqName+": 64 goroutines enqueue and 64 handle; "+celeryName+": prefork, 2 processes; "+rqName+": 2 workers, a process a task",
		riverName+": PostgreSQL without waiting for the disk, 64 goroutines insert, 1,000 workers; survives: kill -9 of the programs, not of PostgreSQL",
		jetstreamName+": the floor: one subject, asynchronous publishing, 4,000 unacknowledged, a plain acknowledgement; survives: kill -9 of every process",
		hozoName+": Kind.NewEnqueuer, Worker with 64 handlers, leases, attempts; survives: kill -9 of every process. "+powerName+": every enqueued task is on disk; survives: power loss")
	for round := range rounds {
		for _, i := range order(len(all), round) {
			s.say("round %d: %s", round+1, all[i].name)
			if err := r.all(ctx, all[i]); err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
		}
	}
	s.report.Ratios = taskRatios(r.grid)
	return errors.Join(r.wrong...)
}

// taskRace is the rounds of the area.
type taskRace struct {
	session *session
	grid    *grid
	turns   int
	wrong   []error
}

// all measures one contender, once.
func (r *taskRace) all(ctx context.Context, m *tasker) (err error) {
	if err := r.serve(ctx, m); err != nil {
		return errors.Join(err, m.end())
	}
	defer func() { err = errors.Join(err, m.end()) }()
	n := m.count * pick(r.session.quick, 1, 3)
	total := 0
	for range 3 {
		t, err := r.run(ctx, m, taskTurn{n: n})
		if err != nil {
			return fmt.Errorf("end to end: %w", err)
		}
		r.grid.add(m.name, "end to end", t.rate()/1000)
		r.grid.add(m.name, "CPU", t.cpu.Seconds()*1e6/float64(n))
		total += n
	}
	t, err := r.run(ctx, m, taskTurn{n: n, apart: true})
	if err != nil {
		return fmt.Errorf("enqueue, then run: %w", err)
	}
	r.grid.add(m.name, "enqueue", float64(n)/t.enqueued.Seconds()/1000)
	r.grid.add(m.name, "run", float64(n)/t.ran.Seconds()/1000)
	if t, err = r.run(ctx, m, taskTurn{n: max(n/4, 100), busy: time.Millisecond}); err != nil {
		return fmt.Errorf("1 ms: %w", err)
	}
	r.grid.add(m.name, "1 ms", t.rate()/1000)
	total += n + max(n/4, 100)
	if m.name != rqName { // it does not do 500 a second
		if t, err = r.run(ctx, m, taskTurn{n: pick(r.session.quick, 1000, 5000), rate: 500}); err != nil {
			return fmt.Errorf("pickup: %w", err)
		}
		r.grid.add(m.name, "pickup p50", float64(t.p50)/1000)
		r.grid.add(m.name, "pickup p99", float64(t.p99)/1000)
	}
	if m.bulk {
		if t, err = r.run(ctx, m, taskTurn{n: 4 * n, produce: "many", work: "batch"}); err != nil {
			return fmt.Errorf("many: %w", err)
		}
		r.grid.add(m.name, "many", t.rate()/1000)
		total += 4 * n
	}
	if m.pending && !r.session.quick {
		if t, err = r.run(ctx, m, taskTurn{n: 1_000_000, apart: true}); err != nil {
			return fmt.Errorf("a million pending: %w", err)
		}
		r.grid.add(m.name, "pending", 1_000_000/t.ran.Seconds()/1000)
		total += 1_000_000
	}
	if len(r.wrong) == 0 {
		r.session.report.Checks = append(r.session.report.Checks,
			fmt.Sprintf("%s: %d tasks and more came, each once and whole, sums of numbers equal", m.name, total))
	}
	return nil
}

// serve starts a contender's servers.
func (r *taskRace) serve(ctx context.Context, m *tasker) error {
	r.turns++
	m.dir, m.url = filepath.Join(r.session.dir, fmt.Sprintf("server%d", r.turns)), ""
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return err
	}
	switch secret := rand.Text(); {
	case m.redis:
		server := &redis{appendOnly: true}
		m.broker = server
		if err := server.start(ctx, m.dir, secret); err != nil {
			return err
		}
		m.url = server.url()
	case m.sql:
		server := &postgres{}
		m.broker = server
		if err := os.Chmod(r.session.dir, 0o711); err != nil { // PostgreSQL runs as another user
			return err
		}
		if err := os.Chmod(m.dir, 0o711); err != nil {
			return err
		}
		if err := server.start(ctx, m.dir, secret); err != nil {
			return err
		}
		m.url = server.url()
	}
	if !m.server {
		return nil
	}
	server, err := m.speak("server")
	if err != nil {
		return err
	}
	m.running = server
	words, err := server.hear(ctx)
	if err != nil {
		return err
	}
	m.url = strings.TrimPrefix(words, "ready ")
	return nil
}

// speak starts a program of m. Addresses hold passwords, so they are no arguments.
func (m *tasker) speak(role string, args ...string) (*speaker, error) {
	argv := append(slices.Clone(m.argv), role, "dir="+m.dir)
	return speakWith([]string{"PEER_URL=" + m.url, "PEER_DIR=" + m.dir}, append(append(argv, m.args...), args...))
}

// end stops the servers.
func (m *tasker) end() (err error) {
	if m.running != nil {
		err = m.running.stop()
		m.running = nil
	}
	if m.broker != nil {
		err = errors.Join(err, m.broker.stop(syscall.SIGTERM))
		m.broker = nil
	}
	return err
}
