//go:build linux

package supervisord

import (
	"maps"
	"slices"

	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

func systemMethods() map[string]method {
	return map[string]method{
		"system.listMethods": {
			call: rpc.listMethods, returns: "array",
			help: "The names of all methods.",
		},
		"system.methodHelp": {
			call: rpc.methodHelp, min: 1, returns: "string", params: []string{"string name"},
			help: "What a method does.",
		},
		"system.methodSignature": {
			call: rpc.methodSignature, min: 1, returns: "array", params: []string{"string name"},
			help: "The type of a method's result, then those of its parameters.",
		},
		"system.multicall": {
			call: rpc.multicall, min: 1, returns: "array", params: []string{"array calls"},
			help: "Make calls, each a struct of methodName and params, one after the other; gives a result or a fault for each.",
		},
	}
}

func (r rpc) listMethods(args) result {
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(r.d.methods)) {
		list = append(list, name)
	}
	return value(list)
}

func (r rpc) methodHelp(a args) result {
	name, _ := a.text(0)
	m, ok := r.d.methods[name]
	if !ok {
		return fail(signatureUnsupported, "")
	}
	return value(m.text())
}

func (r rpc) methodSignature(a args) result {
	name, _ := a.text(0)
	m, ok := r.d.methods[name]
	if !ok {
		return fail(signatureUnsupported, "")
	}
	return value(m.signature())
}

// multicall makes one call after the other; one that has to wait holds up those after it. The results stand in the list
// as they are, not each in an array of its own: clients of Supervisor know them so.
func (r rpc) multicall(a args) result {
	calls, ok := a[0].([]any)
	if !ok {
		return fail(incorrectParameters, "")
	}
	results := []any{}
	var current step
	put := func(v any, fault *xmlrpc.Fault) {
		if fault != nil {
			v = fault.Struct()
		}
		results = append(results, v)
	}
	all := func() (any, bool, *xmlrpc.Fault) {
		for {
			if current != nil {
				v, done, fault := current()
				if !done && fault == nil {
					return nil, false, nil
				}
				current = nil
				put(v, fault)
			}
			if len(calls) == 0 {
				return results, true, nil
			}
			res := r.multicallOne(calls[0])
			calls = calls[1:]
			if current = res.wait; current == nil {
				put(res.value, res.fault)
			}
		}
	}
	if v, done, _ := all(); done {
		return value(v)
	}
	return waitFor(all)
}

func (r rpc) multicallOne(call any) result {
	c, ok := call.(map[string]any)
	if !ok {
		return fail(failed, "a call is not a struct")
	}
	name, ok := c["methodName"].(string)
	if !ok {
		return fail(incorrectParameters, "No methodName")
	}
	if name == "system.multicall" {
		return fail(incorrectParameters, "Recursive system.multicall forbidden")
	}
	params, _ := c["params"].([]any)
	return r.call(name, params)
}
