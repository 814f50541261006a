package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// taskTurn is what one turn measures.
type taskTurn struct {
	n             int
	rate          int           // tasks a second; 0: as fast as they go
	busy          time.Duration // of a handler
	apart         bool          // the worker comes when everything is enqueued
	produce, work string        // roles
}

// taskOutcome is what a turn found.
type taskOutcome struct {
	n        int
	took     time.Duration // from the first call to the last task
	enqueued time.Duration
	ran      time.Duration // from the first task to the last
	cpu      time.Duration
	p50, p99 int64
}

func (o taskOutcome) rate() float64 { return float64(o.n) / o.took.Seconds() }

// taskPatience bounds a turn: the slowest seen took a fifth of it.
const taskPatience = 4 * time.Minute

// run plays one turn of m.
func (r *taskRace) run(ctx context.Context, m *tasker, t taskTurn) (o taskOutcome, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, taskPatience, fmt.Errorf("%w: not every task was done within %v", errWrong, taskPatience))
	defer cancel()
	var cast []*speaker
	defer func() {
		for _, one := range cast {
			err = errors.Join(err, one.stopWithin(pick(m.python, 10*time.Second, 2*time.Second)))
		}
	}()
	enter := func(role string) (*speaker, error) {
		one, err := m.speak(role, fmt.Sprintf("n=%d", t.n), fmt.Sprintf("rate=%d", t.rate), fmt.Sprintf("us=%d", t.busy.Microseconds()))
		if err != nil {
			return nil, err
		}
		cast = append(cast, one)
		_, err = one.hear(ctx)
		return one, err
	}
	produce, work := pick(t.produce == "", "produce", t.produce), pick(t.work == "", "work", t.work)
	var worker *speaker
	if !t.apart {
		if worker, err = enter(work); err != nil {
			return o, err
		}
	}
	producer, err := enter(produce)
	if err != nil {
		return o, err
	}
	pids := m.pids()
	for _, one := range cast {
		pids = append(pids, one.pid())
	}
	before, err := treeCPU(pids)
	if err != nil {
		return o, err
	}
	if err := producer.say(); err != nil {
		return o, err
	}
	sent, err := producer.account(ctx)
	if err != nil {
		return o, err
	}
	if t.apart {
		if worker, err = enter(work); err != nil {
			return o, err
		}
	}
	done, err := worker.account(ctx)
	if err != nil {
		return o, err
	}
	after, err := treeCPU(pids)
	if err != nil {
		return o, err
	}
	o = taskOutcome{
		n: t.n, took: time.Duration(done.Last - sent.First), enqueued: time.Duration(sent.Last - sent.First),
		ran: time.Duration(done.Last - done.First), cpu: after.since(before).sum(), p50: done.P50, p99: done.P99,
	}
	if complaint := done.against(uint64(t.n)); complaint != "" { //nolint:gosec // it is positive
		r.wrong = append(r.wrong, fmt.Errorf("%w: %s: %s", errWrong, m.name, complaint))
	}
	return o, nil
}

// pids are those of the servers.
func (m *tasker) pids() []int {
	var all []int
	if m.broker != nil {
		all = m.broker.pids()
	}
	if m.running != nil {
		all = append(all, m.running.pid())
	}
	return all
}

// taskRatios compares ours with the peers; higher is better.
func taskRatios(g *grid) []ratio {
	var all []ratio
	compare := func(name string, ours, theirs sample, bar float64) {
		if len(ours) > 0 && len(theirs) > 0 {
			all = append(all, ratio{name, ours.median() / theirs.median(), bar})
		}
	}
	ours := g.get(hozoName, "end to end")
	for _, peer := range []struct {
		name, contender string
		bar             float64
	}{{"asynq", asynqName, 8}, {"river", riverName, 12}, {"celery", celeryName, 45}, {"rq", rqName, 400}, {"floor", jetstreamName, 0.75}} {
		compare("tasks_e2e_vs_"+peer.name, ours, g.get(peer.contender, "end to end"), peer.bar)
	}
	compare("tasks_many_vs_asynq", g.get(hozoName, "many"), g.get(asynqName, "end to end"), 25)
	compare("tasks_power_vs_process", g.get(powerName, "end to end"), ours, 0.4)
	compare("tasks_pickup_p50_vs_1500us", sample{1500}, g.get(hozoName, "pickup p50"), 1)
	compare("tasks_million_pending_vs_empty", g.get(hozoName, "pending"), g.get(hozoName, "run"), 0.8)
	return all
}
