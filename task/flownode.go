package task

import (
	"fmt"
	"slices"
	"time"
)

// None is the result of tasks that have none.
type None = struct{}

// Failure is what a task of [OnFailure] is told.
type Failure struct {
	Flow string `json:"flow"` // id of the workflow
	Task string `json:"task"` // name of the task that failed
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Code string `json:"code"`
	What string `json:"what"` // the error
}

// Member is a part of a workflow: a [Node], a [Group] or what [Chain] returns.
type Member interface {
	// ends are the tasks of the member that wait for what is before it, and those that are waited for.
	ends() (heads, tails []*node)
}

// Source is a Member whose result is A: a Node[A], or for A = []R a Group[R].
type Source[A any] interface {
	Member
	source(A)
}

// Work is a kind as part of a workflow: a Kind[A], whose tasks have no result, or a ResultKind[A, R].
type Work[A, R any] interface {
	work(A, R) node
}

// inputKind is where the arguments of a node come from.
type inputKind string

const (
	inputGiven   inputKind = ""        // With
	inputResult  inputKind = "result"  // the result of one other
	inputBytes   inputKind = "bytes"   // the same for kinds that take bytes as they are
	inputResults inputKind = "results" // a list of those of others
	inputFailure inputKind = "failure" // what has failed
)

// node is a task of a workflow as it is defined.
type node struct {
	name  string // that was given
	label string // under which it is stored; set by NewFlow
	kind  string
	args  []byte
	input inputKind
	after []*node // what it waits for; first those whose results it gets
	data  int     // how many those are
	all   []*node // after, or of a failure branch everything whose failure begins it; set by NewFlow
	opts  enqueue
	errs  []error
}

// Node is a task of a workflow whose result is R. A node belongs to one workflow.
type Node[R any] struct{ n *node }

func (n *Node[R]) ends() (heads, tails []*node) { return []*node{n.n}, []*node{n.n} }
func (*Node[R]) source(R)                       {}

// Named names the task within the workflow, for people and for [FlowHandle.Task]; by default it has the name of its kind.
func (n *Node[R]) Named(name string) *Node[R] {
	n.n.name = name
	return n
}

// After has the task begin only when others are done, too. It gets nothing from them.
func (n *Node[R]) After(others ...Member) *Node[R] {
	for _, m := range others {
		_, tails := m.ends()
		n.n.wait(tails)
	}
	return n
}

// Opts sets WithPriority, Key, TTL, In (counted from when the task could begin) or At. Other options are refused.
func (n *Node[R]) Opts(opts ...Option) *Node[R] {
	for _, opt := range opts {
		opt(&n.n.opts)
	}
	e := n.n.opts
	if e.err != nil {
		n.n.errs = append(n.n.errs, e.err)
	}
	if e.given || e.unique != "" {
		n.n.errs = append(n.n.errs, badOption("a task of a workflow has an id of its own and cannot be unique by another"))
	}
	return n
}

func (n *node) wait(others []*node) {
	for _, o := range others {
		if !slices.Contains(n.after, o) {
			n.after = append(n.after, o)
		}
	}
}

func (k Kind[T]) work(T, None) node { return node{kind: k.name, opts: enqueue{priority: Normal}} }

// work shadows that of the Kind.
func (k ResultKind[A, R]) work(A, R) node { return node{kind: k.name, opts: enqueue{priority: Normal}} }

// With makes a task of a workflow with these arguments.
func (k Kind[T]) With(args T) *Node[None] { return with[T, None](k, k, args) }

// With is Kind.With for a task that has a result.
func (k ResultKind[A, R]) With(args A) *Node[R] { return with[A, R](k, k.Kind, args) }

func with[A, R any](w Work[A, R], k Kind[A], args A) *Node[R] {
	n := newNode(w)
	data, err := k.encode(args)
	if err != nil {
		n.errs = append(n.errs, err)
	}
	n.args = data
	return &Node[R]{n}
}

func newNode[A, R any](w Work[A, R]) *node {
	n := w.work(*new(A), *new(R))
	return &n
}

// Then makes a task that begins when from is done and gets its result as arguments: of a Group the results of all, in
// the order of the Group, once the last is there. An edge whose types do not fit is not compiled.
func Then[A, R any](from Source[A], k Work[A, R]) *Node[R] {
	n := newNode(k)
	_, tails := from.ends()
	n.wait(tails)
	n.data, n.input = len(n.after), inputResults
	if _, one := any(from).(*Node[A]); one {
		n.input = inputResult
		if _, plain := any(*new(A)).([]byte); plain {
			n.input = inputBytes
		}
	}
	if len(n.after) != len(tails) || len(tails) == 0 {
		n.errs = append(n.errs, badOption("a group of %d tasks has %d different ones, and needs at least one and none twice", len(tails), len(n.after)))
	}
	return &Node[R]{n}
}

// OnFailure makes a task that begins when one of these, or of what they wait for, has failed for good: dead, or expired. It is
// begun once, by the first; when all of them end well it is skipped. A workflow in which a task has failed is failed even
// when its failure branch ends well.
func OnFailure[R any](k Work[Failure, R], of ...Member) *Node[R] {
	n := newNode(k)
	for _, m := range of {
		n.wait(inside(m))
	}
	n.input = inputFailure
	if len(n.after) == 0 {
		n.errs = append(n.errs, badOption("a failure branch of kind %s is of no task", n.kind))
	}
	return &Node[R]{n}
}

// inside are all tasks of a member.
func inside(m Member) []*node {
	switch m := m.(type) {
	case chain:
		return slices.Concat(m...)
	default:
		_, tails := m.ends()
		return tails
	}
}

// group is several tasks as one.
type group[R any] []*Node[R]

func (g group[R]) ends() (heads, tails []*node) {
	for _, n := range g {
		tails = append(tails, n.n)
	}
	return tails, tails
}
func (group[R]) source([]R) {}

// Group makes one of several tasks that run beside each other. [Then] of a Group is a join.
func Group[R any](nodes ...*Node[R]) Source[[]R] { return group[R](nodes) }

// chain is all tasks of a Chain, by its members.
type chain [][]*node

func (c chain) ends() (heads, tails []*node) {
	if len(c) == 0 {
		return nil, nil
	}
	return c[0], c[len(c)-1]
}

// Chain has members run one after the other, each begun when all of the one before is done. It hands no results on: see [Then].
func Chain(members ...Member) Member {
	var c chain
	var before []*node
	for _, m := range members {
		heads, tails := m.ends()
		for _, n := range heads {
			n.wait(before)
		}
		before = tails
		if inner, ok := m.(chain); ok {
			c = append(c, inner...)
		} else {
			c = append(c, tails)
		}
	}
	return c
}

// watched is what a failure branch of n is about: what it names and everything that has to be done before, up to
// other failure branches.
func (n *node) watched() []*node {
	seen := map[*node]bool{}
	var all []*node
	var visit func(*node)
	visit = func(o *node) {
		if seen[o] {
			return
		}
		seen[o] = true
		if o.input != inputFailure {
			for _, before := range o.after {
				visit(before)
			}
		}
		all = append(all, o)
	}
	for _, o := range n.after {
		visit(o)
	}
	return all
}

// at is when the node may begin that becomes ready now; zero: at once.
func (w *waiting) at(now time.Time) time.Time {
	if w.Delay > 0 {
		return now.Add(w.Delay)
	}
	return w.NotBefore
}

func (e edge) String() string { return fmt.Sprintf("%s (%s)", e.Node, e.Kind) }
