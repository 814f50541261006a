package manifest

import (
	"fmt"

	"github.com/hozo-dev/hozo/internal/resource"
)

// roleItems is a list of resources. They are kept as they stand: what they say is known only for a host.
func roleItems() shape[role] {
	var kinds []any
	for _, k := range resource.Kinds() {
		kinds = append(kinds, kindSchema(k))
	}
	return shape[role]{
		schema{"type": "array", "minItems": 1, "items": schema{"anyOf": kinds}},
		func(d *decoder, n *node, path string, into *role) {
			if n.kind != kindList {
				d.add(n.at, "bad-type", fmt.Sprintf("%s must be a list of resources, not %s", path, n), "write - file: /path, or another kind, on a line of its own")
				return
			}
			for _, item := range n.items {
				if d.resource(item, path) {
					into.items = append(into.items, item)
				}
			}
		},
	}
}

func kindSchema(k resource.Kind) schema {
	properties := schema{k.Name: described(k.Is, k.Doc), "notify": described(resource.Words, notifyDoc)}
	required := []any{k.Name}
	for _, key := range k.Keys {
		properties[key.Name] = described(key.Type, key.Doc)
		if key.Required {
			required = append(required, key.Name)
		}
	}
	return schema{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

const notifyDoc = "Units and commands that are told when this has changed, by kind and name: unit nginx."

func described(t resource.Type, doc string) schema {
	s := schema{}
	templated := schema{"type": "string", "pattern": `\{\{`}
	switch t {
	case resource.Bool:
		s["anyOf"] = []any{schema{"type": "boolean"}, templated}
	case resource.Mode:
		s["anyOf"] = []any{schema{"type": "string", "pattern": `^[0-7]{3,4}$`}, schema{"type": "integer"}, templated}
	case resource.Path:
		s["type"], s["pattern"] = "string", `^/|\{\{`
	case resource.Words, resource.Argv:
		scalar := []any{"string", "number", "boolean"}
		s["anyOf"] = []any{schema{"type": "string", "minLength": 1}, schema{"type": "array", "minItems": 1, "items": schema{"type": scalar}}}
	default:
		s["type"] = []any{"string", "number", "boolean"}
	}
	s["description"] = doc
	return s
}

// kindOf is the kind that a resource's first key names.
func kindOf(item *node) (resource.Kind, bool) {
	if item.kind == kindMap && len(item.entries) > 0 {
		for _, k := range resource.Kinds() {
			if k.Name == item.entries[0].name {
				return k, true
			}
		}
	}
	return resource.Kind{}, false
}

// resource checks the form of one resource: its kind and its keys. Values are looked at for each host.
func (d *decoder) resource(item *node, path string) bool {
	if item.kind == kindBroken {
		return false
	}
	var kinds []string
	for _, k := range resource.Kinds() {
		kinds = append(kinds, k.Name)
	}
	if item.kind != kindMap || len(item.entries) == 0 {
		d.add(item.at, "bad-type", fmt.Sprintf("a resource in %s must be a map, not %s", path, item), "write - file: /path, or another kind")
		return false
	}
	first := &item.entries[0]
	k, ok := kindOf(item)
	if !ok {
		d.add(first.at, "unknown-kind", fmt.Sprintf("there is no kind of resource %q; the first key says what it is", short(first.name)), orKnown(first.name, kinds, "the kind"))
		return false
	}
	names := []string{"notify"}
	for _, key := range k.Keys {
		names = append(names, key.Name)
	}
	good := d.present(first, path+"."+k.Name)
	for i := 1; i < len(item.entries); i++ {
		e := &item.entries[i]
		if !d.knownKey(item, e, k.Name, names) {
			good = false
			continue
		}
		good = d.present(e, k.Name+"."+e.name) && good
	}
	for _, key := range k.Keys {
		if key.Required && item.get(key.Name) == nil {
			d.add(first.at, "missing-key", fmt.Sprintf("%s has no %s", k.Name, key.Name), "add "+key.Name+": "+key.Doc)
			good = false
		}
	}
	return good
}
