package task

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

const (
	// MaxFlowTasks is how many tasks a workflow may have; their records are a few hundred bytes each.
	MaxFlowTasks = 1000

	// MaxFlowEdges bounds how often one task of a workflow waits for another. Each costs an exchange with the broker.
	MaxFlowEdges = 10_000

	// DefaultFlowKeep is how long what became of the tasks of a workflow is kept by default.
	DefaultFlowKeep = 7 * 24 * time.Hour

	maxFlowKeep = 30 * 24 * time.Hour // a third of what the broker keeps of anything
	maxNodeName = 64
)

// Codes of the faults of workflows.
const (
	CodeBadFlow    = "task/bad-flow"    // a workflow that cannot be
	CodeCycle      = "task/cycle"       // tasks that wait for each other
	CodeFlowFailed = "task/flow-failed" // a task of the workflow has failed
	CodeFlowGone   = "task/flow-gone"   // nothing is known any more of the workflow that a task belongs to
)

// FlowConfig tunes a Flow. The zero value lets everything go on that does not need what has failed.
type FlowConfig struct {
	// FailFast has no further task begin once one has failed, but for those of [OnFailure]. What runs is finished.
	FailFast bool
	// Keep is how long what became of each task is kept, from its end; default 7 days, most 30. No workflow may take longer.
	Keep time.Duration
}

// Flow is a workflow: tasks, and which of them wait for which others. It is made by NewFlow, may be started any number
// of times and is safe for concurrent use.
type Flow struct {
	name  string
	cfg   FlowConfig
	nodes []*node // in an order in which they may run
}

// NewFlow makes a workflow of members and of everything that they wait for; what nothing waits for must be named,
// failure branches too. The faults are task/cycle, which names the way round, and task/bad-flow.
//
//	page := Fetch.With(url)
//	sizes := task.Group(task.Then(page, Small), task.Then(page, Large))
//	out := task.Then(sizes, Publish) // once, with both results
//	flow, err := task.NewFlow("thumbnails", task.FlowConfig{}, out, task.OnFailure(Alert, sizes, out))
//	run, err := flow.Start(ctx, conn)
func NewFlow(name string, cfg FlowConfig, members ...Member) (*Flow, error) {
	f := &Flow{name: name, cfg: cfg}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, &fault.Error{Code: CodeBadFlow, Kind: fault.Misuse, What: fmt.Sprintf(format, args...), Where: "workflow " + name, Fix: "correct the program that defines it"})
	}
	if !validName(name) {
		bad("%q cannot be the name of a workflow: 1 to %d letters, digits, dots, dashes and underscores", name, maxNodeName)
	}
	if f.cfg.Keep == 0 {
		f.cfg.Keep = DefaultFlowKeep
	}
	if f.cfg.Keep < time.Minute || f.cfg.Keep > maxFlowKeep {
		bad("its tasks cannot be kept for %v: at least a minute, at most %v", f.cfg.Keep, maxFlowKeep)
	}
	var last []*node
	for _, m := range members {
		_, tails := m.ends()
		last = append(last, tails...)
	}
	var err error
	if f.nodes, err = inOrder(last); err != nil {
		return nil, err
	}
	edges := 0
	for _, n := range f.nodes {
		n.all = n.after
		if n.input == inputFailure {
			n.all = n.watched()
		}
		edges += len(n.all)
		errs = append(errs, n.errs...)
		if n.name != "" && !validName(n.name) {
			bad("%q cannot be the name of a task: 1 to %d letters, digits, dots, dashes and underscores", n.name, maxNodeName)
		}
	}
	switch {
	case len(f.nodes) == 0:
		bad("it has no task")
	case len(f.nodes) > MaxFlowTasks:
		bad("it has %d tasks, and %d is the limit", len(f.nodes), MaxFlowTasks)
	case edges > MaxFlowEdges:
		bad("its tasks wait for others %d times, and %d is the limit", edges, MaxFlowEdges)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if two := nameAll(f.nodes); two != "" {
		bad("two of its tasks are named %q", two)
		return nil, errs[0]
	}
	return f, nil
}

// Name returns the name.
func (f *Flow) Name() string { return f.name }

func validName(name string) bool {
	return name != "" && len(name) <= maxNodeName && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
}

// nameAll names the nodes that have no name after their kinds, with a number from the second on. It returns a name that was
// given twice.
func nameAll(nodes []*node) (twice string) {
	taken := map[string]bool{}
	for _, n := range nodes {
		if n.name != "" && taken[n.name] {
			return n.name
		}
		taken[n.name] = true
	}
	number := map[string]int{}
	for _, n := range nodes {
		n.label = n.name
		for base := n.kind; n.label == ""; {
			number[base]++
			name := base
			if number[base] > 1 {
				name = fmt.Sprintf("%s-%d", base, number[base])
			}
			if !taken[name] {
				taken[name], n.label = true, name
			}
		}
	}
	return ""
}

// inOrder returns last and everything that they wait for, each behind what it waits for.
func inOrder(last []*node) (all []*node, err error) {
	const underway, done = 1, 2
	state := map[*node]int{}
	var path []*node
	var visit func(*node) error
	visit = func(n *node) error {
		switch state[n] {
		case done:
			return nil
		case underway:
			return cycle(append(path[slices.Index(path, n):], n))
		}
		state[n] = underway
		path = append(path, n)
		for _, before := range n.after {
			if err := visit(before); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		state[n] = done
		all = append(all, n)
		return nil
	}
	for _, n := range last {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// cycle is the fault of a path that comes back to where it began, from what waits to what it waits for.
func cycle(path []*node) error {
	var names []string
	for _, n := range slices.Backward(path) {
		name := n.name
		if name == "" {
			name = n.kind
		}
		names = append(names, name)
	}
	return &fault.Error{
		Code: CodeCycle, Kind: fault.Misuse, What: "tasks wait for each other: " + strings.Join(names, " → "), Where: names[0],
		Fix: "remove one of these edges; a loop is a task that starts another workflow",
	}
}
