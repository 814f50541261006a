package manifest

import (
	"errors"
	"fmt"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// maxCondition bounds an expression, and with it the depth of the compiler's recursion, in bytes.
const maxCondition = 4096

// ConditionError says where in a condition its mistake is; Line and Column count from 1.
type ConditionError struct {
	Line, Column int
	Message      string
}

func (e *ConditionError) Error() string {
	return fmt.Sprintf("%s (line %d, column %d of the expression)", e.Message, e.Line, e.Column)
}

// CompileCondition compiles a rule's condition to a program over a map[string]any, the event's JSON, that gives a bool.
// Unknown names are nil. A name of one of the language's functions that is not called means the event's field:
// `type == "PushEvent"` and `count > 3` read fields. The error is a *ConditionError, except for an expression that is
// too long.
func CompileCondition(when string) (*vm.Program, error) {
	if len(when) > maxCondition {
		return nil, fmt.Errorf("the expression is longer than %d bytes", maxCondition)
	}
	tree, err := parser.Parse(when)
	if err != nil {
		return nil, conditionError(err)
	}
	options := []expr.Option{expr.Env(map[string]any{}), expr.AllowUndefinedVariables(), expr.AsBool()}
	found := names{fields: map[string]bool{}}
	ast.Walk(&tree.Node, &found)
	if call := found.unknown; call != nil {
		// The compiler would take it for a field that may hold a function; JSON holds none.
		at := &file.Error{Location: call.Location(), Message: "there is no function " + call.Value}
		return nil, conditionError(at.Bind(file.NewSource(when)))
	}
	for name := range found.fields {
		options = append(options, expr.DisableBuiltin(name))
	}
	program, err := expr.Compile(when, options...)
	if err != nil {
		return nil, conditionError(err)
	}
	return program, nil
}

// names gathers the identifiers of an expression that would be functions if they were called (the parser makes calls of
// functions another kind of node), and the first call of what is no function.
type names struct {
	fields  map[string]bool
	unknown *ast.IdentifierNode
}

// Visit implements ast.Visitor.
func (f *names) Visit(n *ast.Node) {
	switch node := (*n).(type) {
	case *ast.IdentifierNode:
		if _, known := builtin.Index[node.Value]; known {
			f.fields[node.Value] = true
		}
	case *ast.CallNode:
		if id, ok := node.Callee.(*ast.IdentifierNode); ok && f.unknown == nil {
			f.unknown = id
		}
	}
}

func conditionError(err error) error {
	if at, ok := errors.AsType[*file.Error](err); ok {
		return &ConditionError{max(1, at.Line), at.Column + 1, at.Message}
	}
	return &ConditionError{1, 1, err.Error()}
}
