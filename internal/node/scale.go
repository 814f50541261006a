package node

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/autoscale"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/supervisor"
	"github.com/hozo-dev/hozo/wire"
)

// scaleEvery is how often load is looked at: as often as services report.
const scaleEvery = time.Second

// mostByHand bounds what a slip of the hand can start.
const mostByHand = 256

// scaleTo sets numbers of instances by hand. An unknown service, or a number that cannot be, changes nothing.
func (n *Node) scaleTo(ctx context.Context, counts map[string]int) ([]plan.Step, error) {
	n.applying.Lock()
	defer n.applying.Unlock()
	if n.declared == nil {
		return nil, errNoManifest
	}
	services := map[string]manifest.Service{}
	var names []string
	for _, s := range n.declared.Services {
		services[s.Name] = s
		names = append(names, s.Name)
	}
	var errs error
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		s, ok := services[name]
		switch count := counts[name]; {
		case !ok:
			errs = joined(errs, &fault.Error{Code: "node/unknown-service", Kind: fault.Misuse, What: fmt.Sprintf("there is no service %q", name), Fix: "name one of: " + strings.Join(names, ", ")})
		case count < 0 || count > mostByHand:
			errs = joined(errs, &fault.Error{Code: "node/bad-scale", Kind: fault.Misuse, What: fmt.Sprintf("%s cannot have %d instances", name, count), Fix: fmt.Sprintf("give a number from 1 to %d, or %s=manifest; hozo stop %s stops all", mostByHand, name, name)})
		case count > 1 && s.Builtin == "sink":
			errs = joined(errs, &fault.Error{Code: "node/scaled-sink", Kind: fault.Misuse, What: fmt.Sprintf("sink service %q cannot be scaled: one reader keeps the order of the events", name), Fix: "write to more targets with more sinks"})
		}
	}
	if errs != nil {
		return nil, errs
	}
	before := n.current()
	for name, count := range counts {
		n.scaling.byHand(services[name], count)
	}
	steps, err := n.bringLocked(ctx, n.from, n.declared, false)
	n.tellScaled(before, func(string) string { return "set by hozo scale" })
	return steps, err
}

// tellScaled publishes an event for each service whose number of instances is another one than before.
func (n *Node) tellScaled(before *manifest.Manifest, why func(service string) string) {
	after := n.current()
	for i, s := range after.Services {
		if i < len(before.Services) && before.Services[i].Scale != s.Scale {
			n.feed.publish(supervisor.Event{
				Time: time.Now(), Instance: s.Name, Change: status.ChangeScaled,
				ChangeReason: fmt.Sprintf("%d → %d: %s", before.Services[i].Scale, s.Scale, why(s.Name)),
			})
		}
	}
}

// meter remembers how much CPU time each process had used, and when.
type meter struct {
	at   time.Time
	used map[int]float64 // seconds by pid
}

// rates returns the CPU cores that the processes of each service have used since the last call, and all of them together.
// It is nil on the first call.
func (m *meter) rates(now time.Time, instances []status.Instance) (byService map[string]float64, all float64) {
	used := map[int]float64{}
	span := now.Sub(m.at).Seconds()
	if m.used != nil && span > 0 {
		byService = map[string]float64{}
	}
	for _, i := range instances {
		for _, pid := range []int{i.PID, i.NextPID} {
			if pid <= 0 {
				continue
			}
			_, used[pid] = usage(pid)
			before, known := m.used[pid]
			if byService == nil || !known || used[pid] < before {
				continue // it is new, or another process by now
			}
			rate := (used[pid] - before) / span
			byService[i.Name[:len(i.Name)-len(suffix(i.Name))]] += rate
			all += rate
		}
	}
	m.at, m.used = now, used
	return byService, all
}

// scale follows load until ctx ends.
func (n *Node) scale(ctx context.Context) error {
	tick := time.NewTicker(scaleEvery)
	defer tick.Stop()
	var m meter
	var trends map[string]autoscale.Trend
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			trends = n.follow(ctx, now, &m, trends)
		}
	}
}

// follow measures, decides and carries out.
func (n *Node) follow(ctx context.Context, now time.Time, m *meter, trends map[string]autoscale.Trend) map[string]autoscale.Trend {
	running := n.current()
	if running == nil || !slices.ContainsFunc(running.Services, n.scaling.automatic) {
		*m = meter{} // nothing to follow: an idle node measures nothing
		return nil
	}
	instances := n.supervisor.Instances()
	cores, used := m.rates(now, instances)
	var signals []autoscale.Signal
	var flow status.Snapshot
	n.look(ctx, running, &flow)
	for _, s := range running.Services {
		if n.scaling.automatic(s) && !resting(s.Name, instances) {
			signals = append(signals, n.signal(ctx, s, instances, flow.Streams, cores))
		}
	}
	budget := autoscale.Budget{Cores: float64(running.Cores), Used: used}
	if running.Cores == 0 {
		budget.Cores = float64(runtime.NumCPU())
	}
	verdicts, next := autoscale.Decide(now, budget, trends, signals)
	changed := map[string]string{}
	for _, v := range verdicts {
		if v.To == v.From {
			n.scaling.note(v.Service, v.Reason, "")
			continue
		}
		changed[v.Service] = v.Reason
	}
	if len(changed) == 0 {
		return next
	}
	n.applying.Lock()
	defer n.applying.Unlock()
	if n.current() != running {
		return nil // somebody applied meanwhile: what was measured is of another number of instances
	}
	for _, v := range verdicts {
		if v.To != v.From {
			n.scaling.byLoad(v.Service, v.To)
			n.scaling.note(v.Service, v.Reason, fmt.Sprintf("%d → %d: %s", v.From, v.To, v.Reason))
			n.cfg.Logger.InfoContext(ctx, "service scaled", "service", v.Service, "from", v.From, "to", v.To, "reason", v.Reason)
		}
	}
	_, err := n.bringLocked(ctx, n.from, n.declared, false)
	n.tellScaled(running, func(service string) string { return changed[service] })
	if err != nil && ctx.Err() == nil {
		n.cfg.Logger.WarnContext(ctx, "not everything was scaled", "error", err)
	}
	return next
}

// resting says whether a person has stopped every instance of a service: then there is nothing to scale.
func resting(service string, instances []status.Instance) bool {
	for _, i := range instances {
		if strings.HasPrefix(i.Name, service+".") && i.State != status.Stopped {
			return false
		}
	}
	return true
}

// signal is what is known of a service.
func (n *Node) signal(ctx context.Context, s manifest.Service, instances []status.Instance, streams []status.Stream, cores map[string]float64) autoscale.Signal {
	a := s.Autoscale
	sig := autoscale.Signal{
		Service: s.Name, Wanted: s.Scale, Busy: -1, Cores: cores[s.Name],
		Policy: autoscale.Policy{Min: a.Min, Max: a.Max, On: a.On, Target: a.Target, GrowAfter: a.GrowAfter, ShrinkAfter: a.ShrinkAfter},
	}
	for _, i := range instances {
		if i.State == status.Ready && strings.HasPrefix(i.Name, s.Name+".") {
			sig.Ready++
		}
	}
	traffic := n.totals.of(s.Name)
	if traffic.Reporting > 0 {
		sig.Busy = traffic.Busy
	}
	switch a.On {
	case manifest.OnCPU:
		sig.Value, sig.Known = cores[s.Name], cores != nil
	case manifest.OnRequests:
		sig.Value, sig.Known = traffic.InFlight, traffic.Reporting > 0
	case manifest.OnLag:
		for _, stream := range streams {
			for _, c := range stream.Consumers {
				if c.Service == s.Name {
					sig.Value += float64(c.Lag) + float64(c.InFlight)
					sig.Known = true
				}
			}
		}
	case manifest.OnTaskAge:
		age, err := n.oldestTask(ctx, s.Handles)
		sig.Value, sig.Known = age.Seconds(), err == nil
	}
	return sig
}

// oldestTask is the age of the oldest task of some kinds that is not done; 0 when there is none.
func (n *Node) oldestTask(ctx context.Context, kinds []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var oldest time.Duration
	for _, kind := range kinds {
		queue := queueOf(n.current(), kind).Name
		stream, err := n.js.Stream(ctx, wire.StreamName(wire.QueueStream(queue)))
		if err != nil {
			return 0, err
		}
		age, err := oldestIn(ctx, stream, queue, kind)
		if err != nil {
			return 0, err
		}
		oldest = max(oldest, age)
	}
	return oldest, nil
}
