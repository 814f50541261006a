package builtin

import (
	"fmt"
	"maps"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/tidwall/gjson"
)

// fields is what expressions read of an event: a tree of member names. A node without children is wanted whole.
type fields map[string]fields

// fieldsOf finds the fields that a condition reads, and false when that cannot be said from its text alone.
func fieldsOf(when string) (fields, bool, error) {
	tree, err := parser.Parse(when)
	if err != nil {
		return nil, false, fmt.Errorf("parse %q: %w", when, err)
	}
	f := make(fields)
	return f, f.collect(tree.Node), nil
}

// collect adds what node reads. It reports false when node is of a kind that it does not know.
func (f fields) collect(node ast.Node) bool {
	if path, ok := memberPath(node); ok {
		if path[0] == "$env" {
			return false // all of it, under names that are known at run time
		}
		f.want(path)
		return true
	}
	switch n := node.(type) {
	case *ast.NilNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.BytesNode, *ast.ConstantNode:
		return true
	case *ast.PointerNode:
		return true // an element of an array that is wanted whole
	case *ast.ChainNode:
		return f.collect(n.Node)
	case *ast.UnaryNode:
		return f.collect(n.Node)
	case *ast.BinaryNode:
		return f.collectAll(n.Left, n.Right)
	case *ast.MemberNode:
		return f.collectAll(n.Node, n.Property)
	case *ast.SliceNode:
		return f.collectAll(n.Node, n.From, n.To)
	case *ast.ConditionalNode:
		return f.collectAll(n.Cond, n.Exp1, n.Exp2)
	case *ast.ArrayNode:
		return f.collectAll(n.Nodes...)
	case *ast.MapNode:
		return f.collectAll(n.Pairs...)
	case *ast.PairNode:
		return f.collectAll(n.Key, n.Value)
	case *ast.BuiltinNode:
		return f.collectAll(n.Arguments...)
	case *ast.CallNode:
		return f.collectAll(append([]ast.Node{n.Callee}, n.Arguments...)...)
	case *ast.PredicateNode:
		return f.collect(n.Node)
	case *ast.VariableDeclaratorNode:
		return f.collectAll(n.Value, n.Expr) // the variable's own name is wanted too, for nothing
	case *ast.SequenceNode:
		return f.collectAll(n.Nodes...)
	default:
		return false
	}
}

func (f fields) collectAll(nodes ...ast.Node) bool {
	for _, n := range nodes {
		if n != nil && !f.collect(n) {
			return false
		}
	}
	return true
}

// memberPath returns the names of a node like a.b["c"].
func memberPath(node ast.Node) ([]string, bool) {
	switch n := node.(type) {
	case *ast.IdentifierNode:
		return []string{n.Value}, true
	case *ast.ChainNode:
		return memberPath(n.Node)
	case *ast.MemberNode:
		name, ok := n.Property.(*ast.StringNode)
		if !ok {
			return nil, false
		}
		path, ok := memberPath(n.Node)
		return append(path, name.Value), ok
	default:
		return nil, false
	}
}

// want adds a path. What is wanted whole stays so.
func (f fields) want(path []string) {
	for i, name := range path {
		below, known := f[name]
		last := i == len(path)-1
		switch {
		case last:
			f[name] = nil
			return
		case known && below == nil:
			return
		case !known:
			below = make(fields)
			f[name] = below
		}
		f = below
	}
}

// merge adds everything of g.
func (f fields) merge(g fields) {
	for name, theirs := range g {
		ours, known := f[name]
		switch {
		case !known:
			f[name] = theirs
		case ours == nil:
		case theirs == nil:
			f[name] = nil
		default:
			both := maps.Clone(ours)
			both.merge(theirs)
			f[name] = both
		}
	}
}

// extractor reads fields out of events. It reuses its maps; not safe for concurrent use.
type extractor struct{ fields []field }

// field is one member of an object.
type field struct {
	name   string
	path   string         // in gjson's syntax
	below  *extractor     // nil when the member is wanted whole
	member map[string]any // reused: what below reads
}

func newExtractor(f fields) *extractor {
	x := &extractor{}
	for name, below := range f {
		one := field{name: name, path: gjson.Escape(name)}
		if below != nil {
			one.below, one.member = newExtractor(below), make(map[string]any, len(below))
		}
		x.fields = append(x.fields, one)
	}
	return x
}

// into puts the fields of object, a valid JSON object, into env, with the values that decoding the whole of it would
// give: of two members with one name the first counts. The values are valid until the next call.
func (x *extractor) into(env map[string]any, object string) {
	for _, f := range x.fields {
		value := gjson.Get(object, f.path)
		switch {
		case !value.Exists():
		case f.below != nil && value.IsObject():
			clear(f.member)
			f.below.into(f.member, value.Raw)
			env[f.name] = f.member
		default:
			env[f.name] = value.Value()
		}
	}
}

// release lets go of the event that was read last.
func (x *extractor) release() {
	for _, f := range x.fields {
		if f.below != nil {
			clear(f.member)
			f.below.release()
		}
	}
}

// isObject reports whether valid JSON is an object.
func isObject(json string) bool { return strings.HasPrefix(strings.TrimLeft(json, " \t\r\n"), "{") }
