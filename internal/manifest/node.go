package manifest

import (
	"fmt"
	"strings"
)

// kind is what a node of the file is.
type kind int

const (
	kindNull   kind = iota // a key without a value, null or ~
	kindBroken             // reported when it was read: nothing more is said of it
	kindText               // quoted, or plain and nothing else
	kindNumber             // plain digits
	kindBool               // true or false
	kindList
	kindMap
)

// node is a value of the file with its place. Nodes of an anchor are shared by its aliases.
type node struct {
	kind    kind
	at      position
	text    string  // scalars: as written, without quotes
	inline  int     // scalars: characters from at to the first of text, -1 when text is not on one line as it is
	entries []entry // maps, in file order, each name once
	items   []*node // lists
	size    int     // nodes in it, itself included, aliases counted each time
}

// entry is a key of a map with its value.
type entry struct {
	name  string
	at    position
	value *node
}

// get returns the value of a key, or nil.
func (n *node) get(name string) *node {
	if e := n.entry(name); e != nil {
		return e.value
	}
	return nil
}

func (n *node) entry(name string) *entry {
	if n == nil {
		return nil
	}
	for i := range n.entries {
		if n.entries[i].name == name {
			return &n.entries[i]
		}
	}
	return nil
}

func (n *node) scalar() bool { return n.kind == kindText || n.kind == kindNumber || n.kind == kindBool }

// character returns the place of the i-th character of a scalar, or of the scalar where that cannot be told.
func (n *node) character(i int) position {
	if n.inline < 0 {
		return n.at
	}
	return position{n.at.line, n.at.col + n.inline + i}
}

// String describes the node in a message.
func (n *node) String() string {
	switch n.kind {
	case kindNull:
		return "nothing"
	case kindList:
		return "a list"
	case kindMap:
		return "a map"
	case kindNumber, kindBool:
		return short(n.text)
	default:
		return fmt.Sprintf("%q", short(n.text))
	}
}

// short cuts a text that a message quotes.
func short(s string) string {
	const most = 60
	if runes := []rune(s); len(runes) > most {
		return strings.TrimSpace(string(runes[:most])) + "…"
	}
	return s
}
