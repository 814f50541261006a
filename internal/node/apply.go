package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/wire"
)

// prepared is everything that a manifest asks of this host. Making it changes nothing.
type prepared struct {
	manifest *manifest.Manifest
	password string
	grants   []wire.Grant
	clients  []wire.Grant // of foreign clients
	port     int          // of the broker
	specs    []plan.Spec
	layout   broker.Layout
}

// prepare works out what m asks for. With fresh it looks at the programs' files again.
func (n *Node) prepare(m *manifest.Manifest, fresh bool) (*prepared, error) {
	port, err := n.state.port()
	if err != nil {
		return nil, err
	}
	grants, err := grantsOf(m, n.state, dueForReplacement)
	if err != nil {
		return nil, err
	}
	clients, err := clientGrants(m, n.state)
	if err != nil {
		return nil, err
	}
	specs, err := n.specsOf(m, grants, port, fresh)
	if err != nil {
		return nil, err
	}
	password, err := n.state.password()
	if err != nil {
		return nil, err
	}
	layout := layoutOf(m)
	for i, q := range handledQueues(m) {
		layout.Queues[i].Paused = n.pauses.paused(q)
	}
	return &prepared{m, password, grants, clients, port, specs, layout}, nil
}

// plan returns the steps that an apply of the manifest at path would take.
func (n *Node) plan(ctx context.Context, path, env string) ([]plan.Step, error) {
	_, m, err := source(path, env)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	before, known := n.layout, n.manifest != nil
	n.mu.Unlock()
	if !known {
		return nil, errNoManifest
	}
	n.applying.Lock()
	defer n.applying.Unlock()
	p, err := n.prepare(n.scaling.scaled(m), true)
	if err != nil {
		return nil, err
	}
	steps, err := n.supervisor.Plan(ctx, p.specs)
	return slices.Concat(streamSteps(before, p.layout), cronSteps(n.current(), p.manifest), queueSteps(n.current(), p.manifest), clientSteps(n.foreign, p.clients), steps), err
}

// apply brings the host to the manifest at path. An invalid manifest changes nothing.
func (n *Node) apply(ctx context.Context, path, env string) ([]plan.Step, error) {
	src, m, err := source(path, env)
	if err != nil {
		return nil, err
	}
	return n.bring(ctx, applied{File: path, Env: env, Source: src}, m, true)
}

// bring brings the host to m, which was read from what is applied. With fresh a person asks for it.
func (n *Node) bring(ctx context.Context, from applied, m *manifest.Manifest, fresh bool) ([]plan.Step, error) {
	n.applying.Lock()
	defer n.applying.Unlock()
	return n.bringLocked(ctx, from, m, fresh)
}

func (n *Node) bringLocked(ctx context.Context, from applied, m *manifest.Manifest, fresh bool) ([]plan.Step, error) {
	scaled := n.scaling.scaled(m)
	p, err := n.prepare(scaled, fresh)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	before, known := n.layout, n.manifest != nil
	tasks := slices.Concat(cronSteps(n.manifest, p.manifest), queueSteps(n.manifest, p.manifest))
	n.mu.Unlock()
	clients := clientSteps(n.foreign, p.clients)
	steps, err := n.carryOut(ctx, p, fresh)
	if n.current() == scaled {
		n.from, n.declared = from, m
		err = joined(err, joined(n.remember(from, p), n.scaling.settle(m)))
	}
	if known {
		steps = slices.Concat(streamSteps(before, p.layout), tasks, clients, steps)
	}
	return steps, err
}

// carryOut makes the host what p says.
func (n *Node) carryOut(ctx context.Context, p *prepared, fresh bool) ([]plan.Step, error) {
	n.foreign = p.clients
	if err := n.install(p.manifest, p.password, p.grants); err != nil {
		return nil, err
	}
	if err := writeClients(n.state, p.manifest, p.clients, p.port); err != nil {
		return nil, err
	}
	if err := write(n.state.layout(), p.layout); err != nil {
		return nil, fmt.Errorf("write layout: %w", err)
	}
	// A broker that runs already is changed here; one that starts provisions itself before it says that it is ready. One
	// that has started a moment ago, with the layout before this one, is changed by the janitor.
	connected := n.nats.IsConnected()
	if connected {
		if err := n.provision(ctx, p.layout); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	previous := n.manifest
	n.manifest, n.layout, n.unprovisioned = p.manifest, p.layout, !connected
	n.mu.Unlock()
	n.setPaced(ctx, p.manifest, previous)
	if err := n.setCrons(ctx, p.manifest); err != nil {
		n.cfg.Logger.WarnContext(ctx, "crons are not as the manifest says", "error", err)
	}
	bring := n.supervisor.Adjust
	if fresh {
		bring = n.supervisor.Apply
	}
	steps, err := bring(ctx, p.specs)
	if ctx.Err() != nil {
		return steps, err // some may still be on their way out
	}
	if err := joined(err, n.writeAccess(p.password, p.grants)); err != nil {
		return steps, err
	}
	return steps, dropGrants(n.state, p.grants)
}

// streamSteps says what changes in the broker's streams.
func streamSteps(before, after broker.Layout) []plan.Step {
	return listSteps("stream ", before.Streams, after.Streams, func(s broker.StreamSpec) string { return s.Name },
		plan.Step{Op: plan.OpUpdate, Reason: "not in the manifest any more; what it holds is kept"})
}

// listSteps says what changes in a list of things with names. What is not there any more is gone, with its name filled in.
func listSteps[T comparable](what string, before, after []T, name func(T) string, gone plan.Step) []plan.Step {
	var steps []plan.Step
	for _, one := range after {
		i := slices.IndexFunc(before, func(old T) bool { return name(old) == name(one) })
		step := plan.Step{Op: plan.OpUpdate, Name: what + name(one)}
		switch {
		case i < 0:
			step.Op, step.Reason = plan.OpStart, "new"
		case before[i] != one:
			step.Keys = plan.Changed(before[i], one)
			step.Reason = plan.Because(step.Keys, "it changed")
		default:
			continue
		}
		steps = append(steps, step)
	}
	for _, old := range before {
		if !slices.ContainsFunc(after, func(one T) bool { return name(one) == name(old) }) {
			gone.Name = what + name(old)
			steps = append(steps, gone)
		}
	}
	return steps
}
