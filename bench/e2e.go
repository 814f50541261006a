package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// contender is a whole system that takes events over HTTP and stores them.
type contender interface {
	name() string
	durability() string // what an answer, and a stored event, survive
	start(ctx context.Context) error
	stop(ctx context.Context) error
	url() string // to post NDJSON to
	roots() []int
	// await waits until n events are stored, counted from start, and returns when the last one was. It costs next to no
	// processor time: it runs beside what it waits for.
	await(ctx context.Context, n uint64) (time.Time, error)
	// each reads back everything that is stored.
	each(ctx context.Context, visit func(id, kind []byte)) error
}

// Time that starting a contender, and storing one round, may take. The slowest seen is a tenth of it.
const (
	startPatience = time.Minute
	roundPatience = 2 * time.Minute
	stopPatience  = 20 * time.Second
)

// e2e measures HTTP, three stages and a store. All contenders stay up for the whole run, and one works at a time; what
// the idle ones use meanwhile is measured and shown.
func e2e(ctx context.Context, s *session) error {
	s.report.Area = "e2e"
	events, err := newSupply(s.events)
	if err != nil {
		return err
	}
	all, err := s.contenders(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	warm := events.load(8e6)
	s.say("measuring roofs")
	if s.report.Roofs, err = roofs(ctx, s.dir, warm.bodies); err != nil {
		return err
	}
	for _, c := range all {
		s.say("starting %s", c.name())
		defer func() {
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
			defer cancel()
			if err := c.stop(stopCtx); err != nil { // what was measured stands
				s.say("stop %s: %v", c.name(), err)
			}
		}()
		startCtx, cancel := context.WithTimeout(ctx, startPatience)
		startErr := c.start(startCtx)
		cancel()
		if startErr != nil {
			return fmt.Errorf("start %s: %w", c.name(), startErr)
		}
	}
	r := &race{session: s, contenders: all, total: newLedger(false), began: began}
	if err := r.run(ctx, events, warm); err != nil {
		return err
	}
	s.report.Rows = r.rows
	s.report.Ratios = e2eRatios(r.rows)
	return r.check(ctx)
}

// contenders builds what is built from source and returns those that were asked for.
func (s *session) contenders(ctx context.Context) ([]contender, error) {
	wanted := func(name string) bool { return len(s.only) == 0 || slices.Contains(s.only, name) }
	var all []contender
	if wanted(filesName) || wanted(sqliteName) {
		s.say("building hozo and the stages of examples/firehose")
		bin := filepath.Join(s.dir, "bin")
		for name, path := range map[string]string{"hozo": "./cmd/hozo", "classify": "./examples/firehose/classify", "enrich": "./examples/firehose/enrich"} {
			if _, err := output(ctx, s.root, "go", "build", "-o", filepath.Join(bin, name), path); err != nil {
				return nil, fmt.Errorf("build %s: %w", name, err)
			}
		}
		for _, kind := range []string{filesName, sqliteName} {
			if wanted(kind) {
				all = append(all, newHozo(kind, bin, filepath.Join(s.dir, "hozo-"+kind)))
			}
		}
	}
	if wanted(pythonName) {
		all = append(all, newPython(filepath.Join(s.root, "bench", "peers", "python"), filepath.Join(s.dir, "python")))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no contender %s: there are %s, %s and %s", strings.Join(s.only, ", "), filesName, sqliteName, pythonName)
	}
	return all, nil
}

// race is the rounds of one area.
type race struct {
	session    *session
	contenders []contender
	rows       []row
	total      *ledger   // of everything accepted by each contender; the same for all
	began      time.Time // after builds
	first      time.Time // round
}

// quickBudget is when the last round of a quick run must be over: checking and stopping take the rest of 45 s.
const quickBudget = 38 * time.Second

func (r *race) run(ctx context.Context, events *supply, warm load) error {
	s := r.session
	for _, c := range r.contenders {
		r.rows = append(r.rows, row{Name: c.name(), Durability: c.durability()})
	}
	s.say("warming up")
	r.total.merge(warm.ledger)
	for i := range r.contenders {
		if _, err := r.turn(ctx, i, "warm", warm); err != nil {
			return err
		}
	}
	for round := range s.rounds {
		if s.quick && round > 0 && time.Since(r.began)+time.Since(r.first)/time.Duration(round) > quickBudget {
			s.say("round %d would not fit into 45 s", round+1)
			s.report.About = append(s.report.About, fmt.Sprintf("only %d rounds fitted into 45 s", round))
			break
		}
		if round == 0 {
			r.first = time.Now()
		}
		l := events.load(s.bytes)
		if round == 0 {
			s.report.About = append(s.report.About, fmt.Sprintf("%d rounds of %.0f MB, %d events, in %d requests of 256 KiB to 1 MiB on %d connections, closed loop, one producer a connection",
				s.rounds, float64(l.bytes)/1e6, l.ledger.Count, len(l.bodies), s.conns))
		}
		r.total.merge(l.ledger)
		for _, i := range order(len(r.contenders), round) {
			t, err := r.turn(ctx, i, fmt.Sprintf("round%d", round), l)
			if err != nil {
				return err
			}
			r.rows[i].add(t, l)
			s.say("round %d: %-7s %6.1f MB/s stored, %5.1f CPU-s/GB", round+1, r.contenders[i].name(),
				r.rows[i].MBps[round], r.rows[i].CPU[round])
		}
	}
	return nil
}

// turn is what one contender did in one round.
type turn struct {
	accept, store    time.Duration
	cpu              usage
	generator, other time.Duration
}

// turn sends l to contender i and waits until all of it is stored.
func (r *race) turn(ctx context.Context, i int, name string, l load) (turn, error) {
	c := r.contenders[i]
	ctx, cancel := context.WithTimeoutCause(ctx, roundPatience, fmt.Errorf("%w: not everything stored after %s", errWrong, roundPatience))
	defer cancel()
	var others []int
	for j, other := range r.contenders {
		if j != i {
			others = append(others, other.roots()...)
		}
	}
	cpu, err := treeCPU(c.roots())
	if err != nil {
		return turn{}, fmt.Errorf("%s: %w", c.name(), err)
	}
	idle, err := treeCPU(others)
	if err != nil {
		return turn{}, err
	}
	own, start := ownCPU(), time.Now()
	result, err := send(ctx, c.url(), name, l, r.session.conns)
	if err != nil {
		return turn{}, fmt.Errorf("%s: %w", c.name(), err)
	}
	if result.refused > 0 {
		r.session.say("%s: %d requests were refused and sent again", c.name(), result.refused)
	}
	at, err := c.await(ctx, r.total.Count)
	if err != nil {
		return turn{}, fmt.Errorf("%s: %w", c.name(), err)
	}
	t := turn{accept: result.took, store: max(at.Sub(start), result.took), generator: ownCPU() - own}
	after, err := treeCPU(c.roots())
	if err != nil {
		return turn{}, fmt.Errorf("%s: %w", c.name(), err)
	}
	idleAfter, err := treeCPU(others)
	t.cpu, t.other = after.since(cpu), idleAfter.since(idle).sum()
	return t, err
}

func (r *row) add(t turn, l load) {
	gigabytes := float64(l.bytes) / 1e9
	r.MBps = append(r.MBps, megabytes(int64(l.bytes), t.store))
	r.Accept = append(r.Accept, megabytes(int64(l.bytes), t.accept))
	r.Events = append(r.Events, float64(l.ledger.Count)/t.store.Seconds())
	r.CPU = append(r.CPU, t.cpu.sum().Seconds()/gigabytes)
	if r.Programs == nil {
		r.Programs = make(map[string]sample)
	}
	for name, used := range t.cpu {
		r.Programs[name] = append(r.Programs[name], used.Seconds()/gigabytes)
	}
	r.Generator = append(r.Generator, t.generator.Seconds()/gigabytes)
	r.Others = append(r.Others, t.other.Seconds()/t.store.Seconds())
}

// check reads back what every contender stored and compares it with what it accepted.
func (r *race) check(ctx context.Context) error {
	var wrong []error
	for _, c := range r.contenders {
		r.session.say("checking %s", c.name())
		found := newLedger(true)
		if err := c.each(ctx, found.add); err != nil {
			return fmt.Errorf("read back %s: %w", c.name(), err)
		}
		complaints := r.total.compare(c.name(), found)
		for _, complaint := range complaints {
			wrong = append(wrong, fmt.Errorf("%w: %s", errWrong, complaint))
		}
		if len(complaints) == 0 {
			r.session.report.Checks = append(r.session.report.Checks,
				fmt.Sprintf("%s: %d events stored = accepted, every id once, sum of id hashes and counts of %d types equal", c.name(), found.Count, len(found.Types)))
		}
	}
	return errors.Join(wrong...)
}

// e2eRatios compares what ran.
func e2eRatios(rows []row) []ratio {
	by := make(map[string]row)
	for _, row := range rows {
		by[row.Name] = row
	}
	var all []ratio
	files, hasFiles := by[filesName]
	python, hasPython := by[pythonName]
	if hasFiles && hasPython {
		all = append(all, ratio{"e2e_files_vs_python", files.MBps.over(python.MBps).median(), 3})
	}
	if hasFiles {
		// 60 MB/s is 5 TB a day: fifty times the load that the project sets out to carry.
		all = append(all, ratio{"e2e_files_mbps_over_60", files.MBps.median() / 60, 1})
	}
	if hasFiles && hasPython {
		all = append(all, ratio{"e2e_cpu_per_gb_vs_python", python.CPU.over(files.CPU).median(), 1})
	}
	return all
}
