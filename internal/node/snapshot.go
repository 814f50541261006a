package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// flowAge is how old the state of the streams may be: many readers of the status cost as much as five a second. What
	// must know that nothing is on its way any more uses a status.Drain.
	flowAge = 200 * time.Millisecond
	// askPatience bounds the questions to the broker in one snapshot: a status without streams beats no status.
	askPatience = time.Second
	// lagProblem is the backlog in frames from which a reader counts as the bottleneck: below it is what parallel
	// readers have in their hands anyway.
	lagProblem = 32
	// fullProblem is the share of its limit from which a stream is worth a warning: trimming has begun at 70 %.
	fullProblem = 0.9
)

// flow is what the broker says of the streams. Asking it costs a request a stream and reader, so it is asked at most
// every flowAge; instances are always shown as they are.
type flow struct {
	mu       sync.Mutex
	until    time.Time // it is asked anew after that
	of       *manifest.Manifest
	asked    time.Time // before the first question; zero when not every answer came
	streams  []status.Stream
	queues   []status.Queue
	problems []status.Problem
}

// look puts the streams and queues of m and what is wrong with them into s, at most flowAge old. The slices are shared:
// read only.
func (n *Node) look(ctx context.Context, m *manifest.Manifest, s *status.Snapshot) {
	if !n.connectedSoon(ctx) {
		return
	}
	n.flow.mu.Lock()
	defer n.flow.mu.Unlock()
	if n.flow.of != m || time.Now().After(n.flow.until) {
		n.askFlowLocked(ctx, m)
	}
	s.Streams, s.Queues, s.Asked = n.flow.streams, n.flow.queues, n.flow.asked
	s.Problems = append(s.Problems, n.flow.problems...)
}

func (n *Node) askFlowLocked(ctx context.Context, m *manifest.Manifest) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	f := &n.flow
	asked := time.Now()
	var whole bool
	f.streams, whole = n.streams(ctx, m)
	f.queues = n.queues(ctx, m)
	f.problems = n.streamProblems(ctx, f.streams)
	f.problems = append(f.problems, n.slow.look(time.Now(), f.streams)...)
	f.problems = append(f.problems, syncProblems(m, n.syncCosts(ctx, m))...)
	f.of, f.asked, f.until = m, asked, time.Now().Add(flowAge)
	if !whole || len(f.queues) < len(handledQueues(m)) {
		f.asked = time.Time{}
	}
	if len(f.streams) < len(m.Streams) || len(f.queues) < len(handledQueues(m)) {
		f.until = time.Time{} // the broker was on its way up or down: whoever looks next must see when it is there
	}
}

// connectedSoon reports whether there is a connection to the broker. To one that has become ready a moment ago it waits for
// it: the node tries ten times a second.
func (n *Node) connectedSoon(ctx context.Context) bool {
	ready := func(i status.Instance) bool { return i.Name == brokerName && i.State == status.Ready }
	for try := 0; !n.nats.IsConnected(); try++ {
		if try == 50 || !slices.ContainsFunc(n.supervisor.Instances(), ready) {
			return false
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// snapshot returns the state of the project.
func (n *Node) snapshot(ctx context.Context) status.Snapshot {
	m := n.current()
	if m == nil {
		return status.Snapshot{Time: time.Now(), Manifest: n.cfg.File}
	}
	s := status.Snapshot{Project: m.Project, Manifest: m.Path, Time: time.Now(), Problems: []status.Problem{}}
	instances := map[string][]status.Instance{}
	dropped := n.droppedOutput(ctx)
	for _, i := range n.supervisor.Instances() {
		i.RSSBytes, i.CPU = usage(i.PID)
		i.LogDropped = dropped[i.Name]
		service := i.Name[:len(i.Name)-len(suffix(i.Name))]
		instances[service] = append(instances[service], i)
		s.Problems = append(s.Problems, instanceProblems(service, i)...)
	}
	s.Platform = n.platform(ctx, instances[brokerName])
	addresses := n.supervisor.Addresses()
	for _, service := range m.Services {
		one := status.Service{
			Name: service.Name, Builtin: service.Builtin, Scale: service.Scale,
			Instances: instances[service.Name], Traffic: n.totals.of(service.Name),
		}
		one.Scaling = n.scaling.status(service)
		for _, l := range service.Listen {
			if one.Listen == nil {
				one.Listen = map[string]string{}
			}
			one.Listen[l.Name] = l.Address
			if bound, ok := addresses[service.Name+"."+l.Name]; ok {
				one.Listen[l.Name] = bound
			}
		}
		s.Services = append(s.Services, one)
	}
	s.Problems = append(s.Problems, n.totals.overflows()...)
	s.Problems = append(s.Problems, n.spaceProblems(m)...)
	n.look(ctx, m, &s)
	s.Saturated = saturated(s)
	return s
}

// suffix is the ".1" of an instance's name, or "" for the broker.
func suffix(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[i:]
		}
	}
	return ""
}

func (n *Node) platform(ctx context.Context, brokers []status.Instance) []status.Process {
	own := status.Process{Name: "node", PID: os.Getpid(), State: status.Ready, Since: n.started}
	all := []status.Process{{Name: "keeper", State: status.Failed}, own}
	if hello, err := n.keeper.Hello(ctx); err == nil {
		all[0] = status.Process{Name: "keeper", PID: hello.PID, State: status.Ready, Since: hello.Started}
		if hello.Standby > 0 {
			all = append(all, status.Process{Name: "standby", PID: hello.Standby, State: status.Ready, Since: hello.Started})
		}
	}
	for _, b := range brokers {
		all = append(all, status.Process{Name: b.Name, PID: b.PID, State: b.State, Since: b.Since, Restarts: b.Restarts})
	}
	for i := range all {
		all[i].RSSBytes, all[i].CPU = usage(all[i].PID)
	}
	return all
}

// streams returns the streams of m that the broker tells of, and whether it told of all of them and all their readers.
func (n *Node) streams(ctx context.Context, m *manifest.Manifest) ([]status.Stream, bool) {
	all := readers(m)
	costs := n.syncCosts(ctx, m)
	var streams []status.Stream
	whole := true
	for _, stream := range m.Streams {
		handle, err := n.js.Stream(ctx, wire.StreamName(stream.Name))
		if err != nil {
			whole = false // the broker is on its way up or down; the next snapshot has it
			continue
		}
		info := handle.CachedInfo()
		one := status.Stream{
			Name: stream.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
			FirstSeq: info.State.FirstSeq, LastSeq: info.State.LastSeq, Consumers: []status.Consumer{},
			Full: stream.Full, Dropped: droppedOldest(stream, info.State.FirstSeq),
			Durability: string(stream.Durability), Sync: costs[stream.Name].status(),
		}
		for _, src := range all[stream.Name] {
			if at, ok := n.position(ctx, handle, src); ok {
				one.Consumers = append(one.Consumers, at)
			} else {
				whole = false
			}
		}
		streams = append(streams, one)
	}
	return streams, whole
}

// position is how far a service has come, over all partitions that it reads. It reports false while one of its readers is
// being placed anew.
func (n *Node) position(ctx context.Context, stream jetstream.Stream, src wire.Source) (status.Consumer, bool) {
	at := status.Consumer{Service: src.Durable}
	var owners jetstream.Stream
	if src.PerKey {
		var err error
		if owners, err = n.js.Stream(ctx, wire.StreamName(wire.OwnerStream)); err != nil {
			return at, false
		}
	}
	for p, reader := range src.Readers() {
		consumer, err := stream.Consumer(ctx, reader.Durable)
		if err != nil {
			return at, false
		}
		info := consumer.CachedInfo()
		at.Lag += info.NumPending
		at.InFlight += info.NumAckPending
		if src.PerKey {
			one := owner(ctx, owners, src, p)
			one.Lag = info.NumPending
			at.Partitions = append(at.Partitions, one)
		}
	}
	return at, true
}

// owner says who reads a partition now.
func owner(ctx context.Context, owners jetstream.Stream, src wire.Source, p int) status.Partition {
	one := status.Partition{Partition: p}
	msg, err := owners.GetLastMsgForSubject(ctx, wire.OwnerSubject(src.Durable, src.Stream, p))
	if err != nil {
		return one // nobody has read it yet
	}
	var rec wire.Owner
	if err := json.Unmarshal(msg.Data, &rec); err == nil && rec.Member != "" {
		one.Instance = rec.Instance
	}
	one.Epoch = rec.Epoch
	return one
}

// droppedOutput says of which instances output is missing in the log, and how many bytes.
func (n *Node) droppedOutput(ctx context.Context) map[string]uint64 {
	processes, _, err := n.keeper.List(ctx)
	if err != nil {
		return nil // the snapshot shows the keeper as failed
	}
	dropped := map[string]uint64{}
	for _, p := range processes {
		if p.LogDropped > 0 {
			dropped[plan.InstanceOf(p.Name)] += p.LogDropped
		}
	}
	return dropped
}

func instanceProblems(service string, i status.Instance) []status.Problem {
	var problems []status.Problem
	if i.Change == status.ChangeFailed {
		problems = append(problems, status.Problem{
			Code: "instance/change-failed", Title: fmt.Sprintf("the new process of %s was given up, the old one runs on: %s", i.Name, i.ChangeReason),
			Service: service, Since: i.Since, Fix: "see hozo logs " + i.Name + ", correct it, then hozo apply",
		})
	}
	switch i.State {
	case status.Failed, status.Backoff, status.Unready:
		problems = append(problems, status.Problem{
			Code: "instance/" + string(i.State), Title: fmt.Sprintf("%s is in %s: %s", i.Name, i.State, i.Reason),
			Service: service, Since: i.Since, Fix: "hozo logs " + i.Name,
		})
	}
	if i.LogDropped > 0 {
		problems = append(problems, status.Problem{
			Code: "instance/log-dropped", Title: fmt.Sprintf("%d bytes of the output of %s are missing in its log", i.LogDropped, i.Name),
			Service: service, Since: i.Since, Fix: "make room for " + i.Log + "; the log says where bytes are missing",
		})
	}
	if i.LimitsUnmet != "" {
		problems = append(problems, status.Problem{
			Code: "limits/unmet", Title: fmt.Sprintf("%s runs without limits that it should have: %s", i.Name, i.LimitsUnmet),
			Service: service, Since: i.Since, Fix: i.LimitsFix,
		})
	}
	return problems
}

func (n *Node) streamProblems(ctx context.Context, streams []status.Stream) []status.Problem {
	var problems []status.Problem
	for _, s := range streams {
		if s.MaxBytes > 0 && float64(s.Bytes) > fullProblem*float64(s.MaxBytes) {
			problems = append(problems, status.Problem{
				Code: "stream/nearly-full", Title: fmt.Sprintf("stream %s holds %d of %d bytes that are not all read yet", s.Name, s.Bytes, s.MaxBytes),
				Since: time.Now(), Fix: "speed up its slowest reader (see READERS), or raise max_bytes",
			})
		}
	}
	dead, err := n.js.Stream(ctx, wire.StreamName(wire.DeadStream))
	if err == nil && dead.CachedInfo().State.Msgs > 0 {
		problems = append(problems, status.Problem{
			Code: "dlq/not-empty", Title: fmt.Sprintf("%d events or tasks are parked", dead.CachedInfo().State.Msgs),
			Since: dead.CachedInfo().State.FirstTime, Fix: "hozo dlq ls, then hozo dlq retry or hozo dlq drop",
		})
		problems = append(problems, deadNearItsEnd(dead.CachedInfo())...)
	}
	return problems
}

// expirySoon is how long before a dead letter expires it is said so: time to look after it, weekends included.
const expirySoon = 5 * 24 * time.Hour

// deadNearItsEnd warns before dead letters expire, and before there is no room for more: then those who want to park wait.
func deadNearItsEnd(info *jetstream.StreamInfo) []status.Problem {
	var problems []status.Problem
	if left := info.Config.MaxAge - time.Since(info.State.FirstTime); info.Config.MaxAge > 0 && left < expirySoon {
		problems = append(problems, status.Problem{
			Code: "dlq/expiring", Title: fmt.Sprintf("the oldest parked event is dropped in %s", max(left, 0).Round(time.Hour)),
			Since: info.State.FirstTime, Fix: "hozo dlq retry, or hozo dlq ls --json to keep a copy elsewhere",
		})
	}
	if limit := info.Config.MaxMsgs; limit > 0 && float64(info.State.Msgs) > fullProblem*float64(limit) {
		problems = append(problems, status.Problem{
			Code: "dlq/nearly-full", Title: fmt.Sprintf("%d of at most %d events are parked; services that park more will wait", info.State.Msgs, limit),
			Since: time.Now(), Fix: "hozo dlq drop what is of no use, by --code or --service",
		})
	}
	return problems
}

// saturated is the stage that holds up the flow: of the readers with a backlog the one furthest behind. Stages after it
// wait for it, and stages before it only fill its stream.
func saturated(s status.Snapshot) string {
	var most status.Consumer
	for _, stream := range s.Streams {
		for _, c := range stream.Consumers {
			if c.Lag > most.Lag {
				most = c
			}
		}
	}
	if most.Lag < lagProblem {
		return ""
	}
	return most.Service
}
