package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"
)

// messenger is a contender: programs that push, pull, relay, pub, sub, ask and answer. What they say and hear is told in
// bench/messaging/peer/main.go.
type messenger struct {
	name    string
	argv    []string                                               // what comes before the role
	address func(ctx context.Context, edge string) (string, error) // a new one for an edge between programs
	server  bool                                                   // there is one between the programs
	grants  bool                                                   // each program has a credential of its own
	fan     bool                                                   // fan-out and chain are measured
	calls   bool                                                   // questions are measured
	live    bool                                                   // events that nothing stores are measured
	keyed   bool                                                   // events that keep the order of their keys are measured
	tenth   bool                                                   // what one slow reader takes from nine others is measured

	dir, url string // of the running server
	running  *speaker
}

func portAddress(ctx context.Context, _ string) (string, error) {
	port, err := freePort(ctx)
	return fmt.Sprintf("tcp://127.0.0.1:%d", port), err
}

func freshAddress(_ context.Context, edge string) (string, error) {
	return fmt.Sprintf("%s_%d", edge, monotonic()), nil
}

func declaredAddress(_ context.Context, edge string) (string, error) { return edge, nil }

// play is what one turn measures: a sender and receivers, with relays between them, or callers and one who answers.
type play struct {
	size      int
	receivers int
	relays    int
	fan       bool
	live      bool
	keyed     bool
	callers   int
	tenth     string // of ten readers of a steady sender: one of tenths
}

// outcome is what a turn found.
type outcome struct {
	count    uint64 // events of the sender, or answers
	took     time.Duration
	cpu      time.Duration // of all programs and the server
	p50, p99 int64         // ns

	latencies sample // ns, of each event at each reader, where that is measured
}

func (o outcome) rate() float64 { return float64(o.count) / o.took.Seconds() }

// turnPatience bounds a turn: the slowest seen took a tenth of it.
const turnPatience = 20 * time.Second

// run plays one turn of m.
func (r *messagingRace) run(ctx context.Context, m *messenger, p play) (o outcome, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, turnPatience, fmt.Errorf("%w: not everything came within %v", errWrong, turnPatience))
	defer cancel()
	var cast []*speaker
	defer func() {
		for _, one := range cast {
			err = errors.Join(err, one.stop())
		}
		if err == nil && m.running != nil {
			err = m.running.say() // forgets the events, which would fill the disk
			if err == nil {
				_, err = m.running.hear(ctx)
			}
		}
	}()
	enter := func(role, grant string, args ...string) (*speaker, error) {
		argv := append(append([]string{}, m.argv...), role, fmt.Sprintf("size=%d", p.size), fmt.Sprintf("ms=%d", r.turn.Milliseconds()),
			fmt.Sprintf("peers=%d", p.receivers), fmt.Sprintf("callers=%d", p.callers), "url="+m.url)
		if m.grants {
			argv = append(argv, "grant="+filepath.Join(m.dir, grant+".json"))
		}
		one, err := speak(append(argv, args...))
		if err != nil {
			return nil, err
		}
		cast = append(cast, one)
		_, err = one.hear(ctx)
		return one, err
	}
	var first *speaker
	var last []*speaker
	switch {
	case p.callers > 0:
		first, err = r.enterCallers(ctx, m, enter)
	case p.live:
		first, last, err = r.enterLive(ctx, m, enter)
	case p.keyed:
		first, last, err = r.enterKeyed(ctx, m, enter)
	case p.tenth != "":
		first, last, err = r.enterTen(ctx, m, p, enter)
	case p.fan:
		first, last, err = r.enterFan(ctx, m, p, enter)
	default:
		first, last, err = r.enterChain(ctx, m, p, enter)
	}
	if err != nil {
		return o, err
	}
	pids := []int{}
	if m.running != nil {
		pids = append(pids, m.running.pid())
	}
	for _, one := range cast {
		pids = append(pids, one.pid())
	}
	before, err := cpuOf(pids)
	if err != nil {
		return o, err
	}
	if err := first.say(); err != nil {
		return o, err
	}
	o, err = r.settle(ctx, m, p, first, last)
	if err != nil {
		return o, err
	}
	after, err := cpuOf(pids)
	o.cpu = after - before
	return o, err
}

type enterFunc func(role, grant string, args ...string) (*speaker, error)

func (r *messagingRace) enterCallers(ctx context.Context, m *messenger, enter enterFunc) (*speaker, error) {
	at, err := m.address(ctx, "echo")
	if err != nil {
		return nil, err
	}
	if _, err := enter("answer", "answer", "in="+at); err != nil {
		return nil, err
	}
	return enter("ask", "ask", "out="+at)
}

func (r *messagingRace) enterLive(ctx context.Context, m *messenger, enter enterFunc) (*speaker, []*speaker, error) {
	at, err := m.address(ctx, "live")
	if err != nil {
		return nil, nil, err
	}
	last, err := enter("hear", "hear", "in="+at)
	if err != nil {
		return nil, nil, err
	}
	first, err := enter("tell", "tell", "out="+at)
	return first, []*speaker{last}, err
}

func (r *messagingRace) enterKeyed(ctx context.Context, m *messenger, enter enterFunc) (*speaker, []*speaker, error) {
	at, err := m.address(ctx, "keyed")
	if err != nil {
		return nil, nil, err
	}
	last, err := enter("pull-keyed", "pull-keyed", "in="+at)
	if err != nil {
		return nil, nil, err
	}
	first, err := enter("push-keyed", "push-keyed", "out="+at)
	return first, []*speaker{last}, err
}

// enterTen starts nine readers and, if there is one, the tenth.
func (r *messagingRace) enterTen(ctx context.Context, m *messenger, p play, enter enterFunc) (*speaker, []*speaker, error) {
	at, err := m.address(ctx, "ten")
	if err != nil {
		return nil, nil, err
	}
	var last []*speaker
	for i := range p.receivers {
		one, err := enter("clock", fmt.Sprintf("ten-%d", i), "in="+at)
		if err != nil {
			return nil, nil, err
		}
		last = append(last, one)
	}
	if p.tenth != noTenth {
		tenth, err := enter(pick(p.tenth == slowTenth, "slow", "clock"), fmt.Sprintf("ten-%d", p.receivers), "in="+at)
		if err == nil && p.tenth == stoppedTenth {
			err = tenth.cmd.Process.Signal(syscall.SIGSTOP)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	first, err := enter("pace", "pace", "out="+at)
	return first, last, err
}

// enterFan starts the sender first: ZeroMQ's receivers connect to it.
func (r *messagingRace) enterFan(ctx context.Context, m *messenger, p play, enter enterFunc) (*speaker, []*speaker, error) {
	at, err := m.address(ctx, "fan")
	if err != nil {
		return nil, nil, err
	}
	first, err := enter("pub", "push-fan", "out="+at)
	if err != nil {
		return nil, nil, err
	}
	var last []*speaker
	for i := range p.receivers {
		one, err := enter("sub", fmt.Sprintf("sub-%d", i), "in="+at)
		if err != nil {
			return nil, nil, err
		}
		last = append(last, one)
	}
	return first, last, nil
}

// enterChain starts the receiver first, then what sends to it, and so on.
func (r *messagingRace) enterChain(ctx context.Context, m *messenger, p play, enter enterFunc) (*speaker, []*speaker, error) {
	edge := func(i int) string { return pick(p.relays == 0, "one", fmt.Sprintf("c%d", i)) }
	at, err := m.address(ctx, edge(p.relays+1))
	if err != nil {
		return nil, nil, err
	}
	last, err := enter("pull", "pull-"+edge(p.relays+1), "in="+at)
	if err != nil {
		return nil, nil, err
	}
	for i := p.relays; i > 0; i-- {
		to := at
		if at, err = m.address(ctx, edge(i)); err != nil {
			return nil, nil, err
		}
		if _, err := enter("relay", fmt.Sprintf("relay-%d", i), "in="+at, "out="+to); err != nil {
			return nil, nil, err
		}
	}
	first, err := enter("push", "push-"+edge(1), "out="+at)
	return first, []*speaker{last}, err
}

// account is what a program reports.
type account struct {
	First, Last int64 // ns of the monotonic clock
	Count       uint64
	Sum         uint64
	Twice       uint64
	Damaged     uint64
	P50, P99    int64
	Took        []int64 // ns, an event
}

// settle waits for the reports and checks them.
func (r *messagingRace) settle(ctx context.Context, m *messenger, p play, first *speaker, last []*speaker) (outcome, error) {
	sent, err := first.account(ctx)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{count: sent.Count, took: time.Duration(sent.Last - sent.First), p50: sent.P50, p99: sent.P99}
	if p.callers > 0 && (sent.Damaged > 0 || sent.Count == 0) {
		r.wrong = append(r.wrong, fmt.Errorf("%w: %s: %d of %d answers differ from their questions", errWrong, m.name, sent.Damaged, sent.Count))
	}
	for _, one := range last {
		got, err := one.account(ctx)
		if err != nil {
			return o, err
		}
		o.took = max(o.took, time.Duration(got.Last-sent.First))
		for _, ns := range got.Took {
			o.latencies = append(o.latencies, float64(ns))
		}
		if complaint := got.against(sent.Count); complaint != "" {
			r.wrong = append(r.wrong, fmt.Errorf("%w: %s, %d B: %s", errWrong, m.name, p.size, complaint))
		}
	}
	return o, nil
}

// against compares what a receiver has with the n events that were sent, numbered from 0.
func (a account) against(n uint64) string {
	sum := n * (n - 1) / 2 // even, whichever of the two is
	if n%2 == 1 {
		sum = (n - 1) / 2 * n
	}
	if n > 0 && a.Count == n && a.Sum == sum && a.Twice == 0 && a.Damaged == 0 {
		return ""
	}
	return fmt.Sprintf("%d events sent; %d came, %d twice, %d damaged, numbers sum to %d, want %d", n, a.Count, a.Twice, a.Damaged, a.Sum, sum)
}
