package manifest

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// converter turns the parser's tree into nodes: it follows aliases, lays "<<" maps under their map and finds keys that
// are there twice.
type converter struct {
	*report
	anchors map[string]*node
}

// convert never returns nil; at is the place to give to a value that takes no characters.
func (c *converter) convert(n ast.Node, at position) *node {
	out := c.value(n, at)
	if out.size > 0 {
		return out // an anchor's, counted before
	}
	out.size = 1
	for _, e := range out.entries {
		out.size += e.value.size
	}
	for _, item := range out.items {
		out.size += item.size
	}
	return out
}

func (c *converter) value(n ast.Node, at position) *node {
	if n == nil {
		return &node{at: at, inline: -1}
	}
	place := placeOf(n)
	switch n := n.(type) {
	case *ast.NullNode:
		if n.Token.Type == token.ImplicitNullType {
			place = at
		}
		return &node{at: place, inline: -1}
	case *ast.StringNode:
		return c.text(kindText, n.Value, place)
	case *ast.LiteralNode:
		return &node{kind: kindText, text: n.Value.Value, at: place, inline: -1}
	case *ast.IntegerNode:
		return c.text(kindNumber, n.Token.Value, place)
	case *ast.FloatNode:
		return c.text(kindNumber, n.Token.Value, place)
	case *ast.BoolNode:
		return c.text(kindBool, n.Token.Value, place)
	case *ast.InfinityNode, *ast.NanNode:
		return c.text(kindText, n.GetToken().Value, place)
	case *ast.SequenceNode:
		out := &node{kind: kindList, at: place, inline: -1}
		for _, item := range n.Values {
			if value := c.convert(item, place); value.kind != kindBroken {
				out.items = append(out.items, value)
			}
		}
		return out
	case *ast.MappingNode:
		return c.mapping(n.Values, place)
	case *ast.MappingValueNode:
		return c.mapping([]*ast.MappingValueNode{n}, place)
	case *ast.AnchorNode:
		value := c.convert(n.Value, place)
		c.anchors[markName(n.Name)] = value
		return c.bounded(value, place)
	case *ast.AliasNode:
		return c.alias(n, place)
	case *ast.TagNode:
		return c.tag(n, place)
	default:
		c.add(place, "syntax", "this YAML form is not used in a manifest", "write plain maps, lists and values")
		return broken(place)
	}
}

// text makes a scalar and notes where its characters are, so that a mistake inside it can be pointed at.
func (c *converter) text(k kind, text string, at position) *node {
	out := &node{kind: k, text: text, at: at, inline: -1}
	if at.line <= len(c.lines) {
		rest := after(c.lines[at.line-1], at.col-1)
		for i, quote := range []string{"", `"`, `'`} {
			if strings.HasPrefix(rest, quote+text) && (i == 0 || strings.HasPrefix(rest[len(quote)+len(text):], quote)) {
				out.inline = len(quote)
				break
			}
		}
	}
	return out
}

// after returns s without its first n characters.
func after(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[i:]
		}
		n--
	}
	return ""
}

func markName(n ast.Node) string {
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}

// alias shares the node of its anchor: an alias costs nothing until it is decoded, and bounded counts that.
func (c *converter) alias(n *ast.AliasNode, at position) *node {
	name := markName(n.Value)
	value, ok := c.anchors[name]
	if !ok {
		names := make([]string, 0, len(c.anchors))
		for known := range c.anchors {
			names = append(names, known)
		}
		c.add(at, "unknown-anchor", fmt.Sprintf("no anchor &%s stands before this alias", short(name)), orKnown(name, names, "the anchor"))
		return broken(at)
	}
	return c.bounded(value, at)
}

// bounded refuses a value that its aliases have made too large, as in the "billion laughs" attack.
func (c *converter) bounded(value *node, at position) *node {
	if value.size <= maxNodes {
		return value
	}
	c.add(at, "too-large", fmt.Sprintf("aliases multiply this value to more than %d parts", maxNodes), "write out what is meant")
	return broken(at)
}

func broken(at position) *node { return &node{kind: kindBroken, at: at, inline: -1} }

// tag knows !!str, which keeps a value as text; others have no meaning in a manifest.
func (c *converter) tag(n *ast.TagNode, at position) *node {
	value := c.convert(n.Value, at)
	if n.Start.Value == "!!str" && (value.scalar() || value.kind == kindNull) {
		out := *value
		out.kind = kindText
		return &out
	}
	c.add(at, "tag", fmt.Sprintf("the tag %s has no meaning in a manifest", short(n.Start.Value)), "remove it; quote a value to keep it as text")
	return value
}

func (c *converter) mapping(values []*ast.MappingValueNode, at position) *node {
	out := &node{kind: kindMap, at: at, inline: -1}
	seen := make(map[string]position, len(values))
	var under []*node
	for _, v := range values {
		place := tokenPlace(v.Key.GetToken())
		if v.Key.IsMergeKey() {
			under = append(under, c.merged(c.convert(v.Value, place))...)
			continue
		}
		name, ok := keyName(v.Key)
		value := c.convert(v.Value, place)
		if !ok {
			c.add(place, "bad-key", "a key must be plain text", "write name: value")
			continue
		}
		if first, twice := seen[name]; twice {
			c.add(place, "duplicate-key", fmt.Sprintf("%q is set twice in one map; first in line %d", short(name), first.line), "keep one of the two")
			continue
		}
		seen[name] = place
		out.entries = append(out.entries, entry{name, place, value})
	}
	for _, m := range under { // the map's own keys come first, then the maps under it in their order
		for _, e := range m.entries {
			if _, set := seen[e.name]; !set {
				seen[e.name] = e.at
				out.entries = append(out.entries, e)
			}
		}
	}
	return out
}

// merged returns the maps that a "<<" key names.
func (c *converter) merged(n *node) []*node {
	switch n.kind {
	case kindBroken:
		return nil
	case kindMap:
		return []*node{n}
	case kindList:
		var all []*node
		for _, item := range n.items {
			if item.kind == kindMap {
				all = append(all, item)
				continue
			}
			c.add(item.at, "bad-merge", "<< takes maps, not "+item.String(), "write <<: *anchor of a map")
		}
		return all
	}
	c.add(n.at, "bad-merge", "<< takes a map, not "+n.String(), "write <<: *anchor of a map")
	return nil
}

// keyName returns the text of a scalar key.
func keyName(key ast.MapKeyNode) (string, bool) {
	switch k := key.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.NullNode:
		return key.GetToken().Value, true
	case *ast.MappingKeyNode:
		if inner, ok := k.Value.(ast.MapKeyNode); ok {
			if _, again := inner.(*ast.MappingKeyNode); !again {
				return keyName(inner)
			}
		}
	}
	return "", false
}
