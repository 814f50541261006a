package manifest

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxSource is the largest file, 1 MiB: a hundred times the largest manifest that a person would write.
	maxSource = 1 << 20
	// maxTokens bounds the parser, which takes the square of the number of keys of a map: 10,000 keys in one map take
	// it 0.3 s on the machine that this was measured on.
	maxTokens = 30_000
	// maxDepth bounds its recursion; the manifest itself needs 8.
	maxDepth = 32
	// maxNodes bounds what aliases may multiply to.
	maxNodes = 30_000
	// maxMarks bounds anchors and tags, on which the parser recurses as well.
	maxMarks = 500
)

// parseYAML reads a file of one YAML document into nodes, or returns nil after reporting why it cannot.
func parseYAML(src string, r *report) *node {
	if at, ok := badCharacter(src); !ok {
		r.add(at, "encoding", "the file is not plain UTF-8 text", "save it as UTF-8, without control characters")
		return nil
	}
	file := parseFile(src, r)
	if file == nil {
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			r.add(placeOf(doc.Body), "many-documents", "the file holds more than one YAML document", "keep one manifest a file; use envs for variants")
			return nil
		}
		body = doc.Body
	}
	if body == nil {
		r.add(position{1, 1}, "empty", "the manifest is empty", "begin with project: NAME and services:")
		return nil
	}
	c := converter{report: r, anchors: map[string]*node{}}
	return c.bounded(c.convert(body, position{1, 1}), position{1, 1})
}

// badCharacter finds the first byte that is not UTF-8, or the first control character.
func badCharacter(src string) (position, bool) {
	at := position{1, 1}
	for i, r := range src {
		switch {
		case r == '\n':
			at = position{at.line + 1, 1}
			continue
		case r == utf8.RuneError && !strings.HasPrefix(src[i:], "\uFFFD"):
			return at, false
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f, r == '\uFEFF':
			return at, false
		}
		at.col++
	}
	return at, true
}

// parseFile runs the YAML parser within its bounds. Its panics on malformed input are its only answer to some of it, so
// they are reported as what they are: a file that cannot be read.
func parseFile(src string, r *report) (file *ast.File) {
	defer func() {
		if recover() != nil {
			r.add(position{1, 1}, "syntax", "the file is not YAML that can be read", "compare it with `hozo schema` and an example")
			file = nil
		}
	}()
	tokens := lexer.Tokenize(src)
	if at, what := tooLarge(tokens); what != "" {
		r.add(at, "too-large", what, "keep the manifest small and flat")
		return nil
	}
	// Duplicate keys are found here, all of them, rather than by the parser, which stops at the first.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		at, what := position{1, 1}, err.Error()
		if syntax, ok := errors.AsType[*yaml.SyntaxError](err); ok {
			at, what = tokenPlace(syntax.Token), syntax.Message
		}
		r.add(at, "syntax", "YAML: "+what, "check the indentation, the quotes and the colons around it")
		return nil
	}
	return file
}

// tooLarge looks for what would make the parser slow or its stack deep.
func tooLarge(tokens token.Tokens) (position, string) {
	var (
		columns      []int // of the block collections that are open
		flow         int   // brackets that are open
		count, marks int
	)
	for _, tk := range tokens {
		column := 0
		switch tk.Type {
		case token.CommentType:
			continue
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow = max(0, flow-1)
		case token.AnchorType, token.AliasType, token.TagType:
			marks++
		case token.SequenceEntryType, token.MappingKeyType:
			column = tk.Position.Column
		case token.MappingValueType:
			column = tk.Position.Column
			if tk.Prev != nil {
				column = tk.Prev.Position.Column
			}
		}
		if column > 0 && flow == 0 {
			for len(columns) > 0 && columns[len(columns)-1] >= column {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, column)
		}
		count++
		switch {
		case flow+len(columns) > maxDepth:
			return tokenPlace(tk), fmt.Sprintf("values are nested more than %d deep", maxDepth)
		case count > maxTokens:
			return tokenPlace(tk), fmt.Sprintf("the file has more than %d words and signs", maxTokens)
		case marks > maxMarks:
			return tokenPlace(tk), fmt.Sprintf("the file has more than %d anchors, aliases and tags", maxMarks)
		}
	}
	return position{}, ""
}

func tokenPlace(tk *token.Token) position {
	if tk == nil || tk.Position == nil {
		return position{1, 1}
	}
	return position{max(1, tk.Position.Line), max(1, tk.Position.Column)}
}

// placeOf is where a person would say that a value begins; a block map begins at its first key, not at its colon.
func placeOf(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return tokenPlace(n.Values[0].Key.GetToken())
		}
	case *ast.MappingValueNode:
		return tokenPlace(n.Key.GetToken())
	}
	return tokenPlace(n.GetToken())
}
