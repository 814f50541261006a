package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The contenders of the area.
const (
	libzmqName    = "libzmq"
	pyzmqName     = "pyzmq"
	natsName      = "nats.go"
	jetstreamName = "JetStream"
	watermillName = "Watermill"
)

// mainSize is the size of event, in bytes, of everything that is measured with one size.
const mainSize = 128

var (
	messagingSizes = []int{16, mainSize, 1 << 10, 64 << 10}

	messagingMetrics = []metric{
		{"stream 16 B", "k/s", "events of one sender that one receiver has checked"},
		{"stream 128 B", "k/s", "the same; three times a round"},
		{"stream 1 KiB", "k/s", "the same"},
		{"stream 64 KiB", "k/s", "the same"},
		{"CPU 16 B", "µs", "of all processes, an event"},
		{"CPU 128 B", "µs", "the same"},
		{"CPU 1 KiB", "µs", "the same"},
		{"CPU 64 KiB", "µs", "the same"},
		{"in order 128 B", "k/s", "the same of 1,000 keys in 16 partitions, in the order of each; three times a round"},
		{"live 128 B", "k/s", "events that nothing stores, of one sender at one receiver; three times a round"},
		{"fan-out 1→4", "k/s", "events of 128 B, at all four receivers together"},
		{"chain of 4", "k/s", "events of 128 B through four programs after the sender"},
		{noTenth, "µs", "nine readers, 2,000 events of 128 B a second: from when an event was due until a handler had it"},
		{slowTenth, "µs", "the same nine, with a tenth whose handler takes a hundredth of the events"},
		{stoppedTenth, "µs", "the same nine, with a tenth that SIGSTOP has stopped"},
		{"ask p50, 1", "µs", "question and answer of 128 B, one caller"},
		{"ask p99, 1", "µs", "the same"},
		{"ask p50, 64", "µs", "64 callers in one program"},
		{"ask p99, 64", "µs", "the same"},
		{"ask 64", "k/s", "the same: answers"},
	}
)

// What the tenth of ten readers of one stream does.
const (
	noTenth      = "p99 of nine" // there is none
	slowTenth    = "p99, a 10th slow"
	stoppedTenth = "p99, a 10th stopped"
)

// tenths are taken in turn, each round in another order.
var tenths = []string{noTenth, slowTenth, stoppedTenth}

// messaging measures what programs can send each other, one contender at a time.
func messaging(ctx context.Context, s *session) error {
	s.report.Area = "messaging"
	all, err := s.messengers(ctx)
	if err != nil {
		return err
	}
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.name
	}
	r := &messagingRace{session: s, grid: newGrid(messagingMetrics, names...), turn: pick(s.quick, 250*time.Millisecond, time.Second)}
	s.report.Grid = r.grid
	rounds := pick(s.quick, 1, s.rounds)
	s.report.About = append(s.report.About,
		fmt.Sprintf("%d rounds; each sender sends for %v; every program and server is a process of its own, over TCP on loopback", rounds, r.turn),
		libzmqName+", "+pyzmqName+": PUSH/PULL, XPUB/SUB without drops, REQ/REP; high-water marks of 100,000 instead of 1,000; survives: nothing",
		natsName+": core NATS; survives: nothing. "+jetstreamName+": one message an event, 4,000 unacknowledged; "+watermillName+": on JetStream, 64 publishers; survive: kill -9 of every process",
		hozoName+": bus.Publisher, stream with durability process, bus.Stage, checksums; survives: kill -9 of every process. Calls are not stored")
	for round := range rounds {
		for _, i := range order(len(all), round) {
			s.say("round %d: %s", round+1, all[i].name)
			if err := r.all(ctx, all[i]); err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
		}
	}
	s.report.Ratios = messagingRatios(r.grid)
	return errors.Join(r.wrong...)
}

// messengers builds the contenders that were asked for.
func (s *session) messengers(ctx context.Context) ([]*messenger, error) {
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return nil, err
	}
	source := filepath.Join(s.root, "bench", "messaging")
	all := []*messenger{
		{name: libzmqName, argv: []string{filepath.Join(bin, "zmq")}, address: portAddress, fan: true, calls: true},
		{name: pyzmqName, argv: []string{python3, filepath.Join(source, "zmq_peer.py")}, address: portAddress, fan: true, calls: true},
		{name: natsName, argv: []string{filepath.Join(bin, "peer"), "nats"}, server: true, address: freshAddress, fan: true, live: true, calls: true},
		{name: jetstreamName, argv: []string{filepath.Join(bin, "peer"), "jetstream"}, server: true, address: freshAddress, fan: true},
		{name: watermillName, argv: []string{filepath.Join(bin, "peer"), "watermill"}, server: true, address: freshAddress},
		{name: hozoName, argv: []string{filepath.Join(bin, "peer"), "hozo"}, server: true, address: declaredAddress, grants: true, fan: true, keyed: true, tenth: true, live: true, calls: true},
	}
	all = slices.DeleteFunc(all, func(m *messenger) bool { return len(s.only) > 0 && !slices.Contains(s.only, m.name) })
	if len(all) == 0 {
		return nil, fmt.Errorf("no contender %s", strings.Join(s.only, ", "))
	}
	s.say("building programs")
	if slices.ContainsFunc(all, func(m *messenger) bool { return m.name == libzmqName }) {
		if _, err := output(ctx, source, "cc", "-O2", "-o", filepath.Join(bin, "zmq"), "zmq.c", "-lzmq", "-lpthread"); err != nil {
			return nil, fmt.Errorf("build the libzmq programs (bench/setup.sh installs the library): %w", err)
		}
	}
	if slices.ContainsFunc(all, func(m *messenger) bool { return m.server }) {
		if _, err := output(ctx, source, "go", "build", "-o", filepath.Join(bin, "peer"), "./peer"); err != nil {
			return nil, fmt.Errorf("build the Go programs: %w", err)
		}
	}
	return all, nil
}

// messagingRace is the rounds of the area.
type messagingRace struct {
	session *session
	grid    *grid
	turn    time.Duration // of one sender
	turns   int           // so far
	wrong   []error
}

// all measures everything that a contender can do, once.
func (r *messagingRace) all(ctx context.Context, m *messenger) (err error) {
	if m.server {
		server, err := r.serve(ctx, m)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.stop()) }()
	}
	events := uint64(0)
	for _, size := range messagingSizes {
		for range pick(size == mainSize, 3, 1) {
			t, err := r.run(ctx, m, play{size: size, receivers: 1})
			if err != nil {
				return fmt.Errorf("stream of %s: %w", sizeName(size), err)
			}
			r.grid.add(m.name, "stream "+sizeName(size), t.rate()/1000)
			r.grid.add(m.name, "CPU "+sizeName(size), t.cpu.Seconds()*1e6/float64(t.count))
			events += t.count
		}
	}
	if m.fan {
		t, err := r.run(ctx, m, play{size: mainSize, receivers: 4, fan: true})
		if err != nil {
			return fmt.Errorf("fan-out: %w", err)
		}
		r.grid.add(m.name, "fan-out 1→4", 4*t.rate()/1000)
		events += 4 * t.count
		if t, err = r.run(ctx, m, play{size: mainSize, receivers: 1, relays: 3}); err != nil {
			return fmt.Errorf("chain: %w", err)
		}
		r.grid.add(m.name, "chain of 4", t.rate()/1000)
		events += t.count
	}
	for range pick(m.live, 3, 0) {
		t, err := r.run(ctx, m, play{size: mainSize, receivers: 1, live: true})
		if err != nil {
			return fmt.Errorf("live events: %w", err)
		}
		r.grid.add(m.name, "live 128 B", t.rate()/1000)
		events += t.count
	}
	for range pick(m.keyed, 3, 0) {
		t, err := r.run(ctx, m, play{size: mainSize, receivers: 1, keyed: true})
		if err != nil {
			return fmt.Errorf("events in order: %w", err)
		}
		r.grid.add(m.name, "in order 128 B", t.rate()/1000)
		events += t.count
	}
	for i := range pick(m.tenth, 3, 0) {
		for _, at := range order(len(tenths), i) {
			t, err := r.run(ctx, m, play{size: mainSize, receivers: 9, tenth: tenths[at]})
			if err != nil {
				return fmt.Errorf("%s: %w", tenths[at], err)
			}
			r.grid.add(m.name, tenths[at], t.latencies.quantile(0.99)/1000)
			events += 9 * t.count
		}
	}
	answers := uint64(0)
	if m.calls {
		for _, callers := range []int{1, 64} {
			t, err := r.run(ctx, m, play{size: mainSize, callers: callers})
			if err != nil {
				return fmt.Errorf("%d callers: %w", callers, err)
			}
			r.grid.add(m.name, "ask p50, "+strconv.Itoa(callers), float64(t.p50)/1000)
			r.grid.add(m.name, "ask p99, "+strconv.Itoa(callers), float64(t.p99)/1000)
			if callers > 1 {
				r.grid.add(m.name, "ask 64", t.rate()/1000)
			}
			answers += t.count
		}
	}
	if len(r.wrong) == 0 {
		r.session.report.Checks = append(r.session.report.Checks,
			fmt.Sprintf("%s: %d events came, each once and whole, sums of numbers equal; %d answers equal their questions", m.name, events, answers))
	}
	return nil
}

// serve starts a contender's server and leaves in m how to reach it.
func (r *messagingRace) serve(ctx context.Context, m *messenger) (*speaker, error) {
	r.turns++
	m.dir = filepath.Join(r.session.dir, fmt.Sprintf("server%d", r.turns))
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return nil, err
	}
	server, err := speak(append(slices.Clone(m.argv), "server", "dir="+m.dir))
	if err != nil {
		return nil, err
	}
	words, err := server.hear(ctx)
	if err != nil {
		return nil, errors.Join(err, server.stop())
	}
	m.url, m.running = strings.TrimPrefix(words, "ready "), server
	return server, nil
}

func sizeName(size int) string {
	if size < 1<<10 {
		return strconv.Itoa(size) + " B"
	}
	return strconv.Itoa(size>>10) + " KiB"
}

// messagingRatios compares ours with the peers; higher is better.
func messagingRatios(g *grid) []ratio {
	var all []ratio
	compare := func(name, metric, peer string, bar float64, lower bool) {
		ours, theirs := g.get(hozoName, metric), g.get(peer, metric)
		if len(ours) == 0 || len(theirs) == 0 {
			return
		}
		if lower {
			ours, theirs = theirs, ours
		}
		all = append(all, ratio{name, ours.median() / theirs.median(), bar})
	}
	compare("messaging_durable_vs_libzmq", "stream 128 B", libzmqName, 1.4, false)
	compare("messaging_durable_vs_jetstream", "stream 128 B", jetstreamName, 12, false)
	if ordered, free := g.get(hozoName, "in order 128 B"), g.get(hozoName, "stream 128 B"); len(ordered) > 0 && len(free) > 0 {
		all = append(all, ratio{"messaging_ordered_vs_unordered", ordered.median() / free.median(), 0.7})
	}
	for _, tenth := range []struct{ name, metric string }{{"messaging_slow_tenth", slowTenth}, {"messaging_stopped_tenth", stoppedTenth}} {
		if alone, beside := g.get(hozoName, noTenth), g.get(hozoName, tenth.metric); len(alone) > 0 && len(beside) > 0 {
			all = append(all, ratio{tenth.name, alone.median() / beside.median(), 0.91}) // at most 1.1 times as long
		}
	}
	compare("messaging_live_vs_nats", "live 128 B", natsName, 0.9, false)
	compare("messaging_ask_p50_vs_nats", "ask p50, 1", natsName, 0.83, true) // at most 1.2 times as long
	return all
}
