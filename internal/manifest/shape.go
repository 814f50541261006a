package manifest

import (
	"fmt"
	"maps"
	"slices"
)

// schema is a JSON Schema as encoding/json writes it.
type schema = map[string]any

// shape is a form that a value of the file takes. What the JSON Schema says of it and what the decoder does with it stand
// side by side in one value, so that the two cannot drift apart.
type shape[V any] struct {
	schema schema
	// read decodes n into a value that holds its defaults. It reports what is wrong and then leaves the default.
	read func(d *decoder, n *node, path string, into *V)
}

// decoder reads nodes into the manifest's types.
type decoder struct {
	*report
	dir     string // relative paths start here
	overlay bool   // the file's part under envs.NAME: keys without a value remove the base's and are passed over here
}

// key is one key of a map whose keys are known.
type key[T any] struct {
	name, doc string
	schema    schema
	read      func(d *decoder, n *node, path string, into *T)
}

// field makes a key of a struct's field.
func field[T, V any](name, doc string, of shape[V], at func(*T) *V) key[T] {
	return key[T]{name, doc, of.schema, func(d *decoder, n *node, path string, into *T) { of.read(d, n, path, at(into)) }}
}

// object is a map with known keys; rules are further keywords of its schema.
func object[T any](keys []key[T], rules schema) shape[T] {
	properties, names := schema{}, make([]string, 0, len(keys))
	for _, k := range keys {
		described := maps.Clone(k.schema)
		described["description"] = k.doc
		properties[k.name] = described
		names = append(names, k.name)
	}
	out := schema{"type": "object", "properties": properties, "additionalProperties": false}
	maps.Copy(out, rules)
	return shape[T]{out, func(d *decoder, n *node, path string, into *T) {
		if !d.isMap(n, path) {
			return
		}
		for i := range n.entries {
			e := &n.entries[i]
			if !d.knownKey(n, e, path, names) {
				continue
			}
			at := slices.Index(names, e.name)
			if d.present(e, join(path, e.name)) {
				keys[at].read(d, e.value, join(path, e.name), into)
			}
		}
	}}
}

// knownKey reports an unknown key. One that is clearly a slip is renamed to what was meant, so that its value is checked
// and nothing is said to be missing.
func (d *decoder) knownKey(n *node, e *entry, path string, names []string) bool {
	if slices.Contains(names, e.name) {
		return true
	}
	what := fmt.Sprintf("unknown key %q", short(e.name))
	if path != "" {
		what += " in " + path
	}
	d.add(e.at, "unknown-key", what, orKnown(e.name, names, "the key"))
	meant := closest(e.name, names)
	if meant == "" || n.entry(meant) != nil {
		return false
	}
	e.name = meant
	return true
}

// present reports a key without a value, which an overlay may have.
func (d *decoder) present(e *entry, path string) bool {
	if e.value.kind != kindNull {
		return e.value.kind != kindBroken
	}
	if !d.overlay {
		d.add(e.at, "no-value", path+" has no value", "give it one, or remove the key")
	}
	return false
}

func (d *decoder) isMap(n *node, path string) bool {
	if n.kind == kindMap {
		return true
	}
	if n.kind == kindBroken {
		return false
	}
	if path == "" {
		path = "the manifest"
	}
	d.add(n.at, "bad-type", fmt.Sprintf("%s must be a map, not %s", path, n), "write key: value pairs under it")
	return false
}

// named is a map of things under names of the user's, in the order of the file.
type named[V any] struct {
	name  nameRule
	item  shape[V]
	make  func(name string) V // with its defaults
	empty bool                // a name without a value takes all defaults
}

func (m named[V]) shape() shape[[]V] {
	item := m.item.schema
	if m.empty {
		item = orNull(item)
	}
	return shape[[]V]{
		schema{"type": "object", "propertyNames": schema{"pattern": m.name.pattern}, "additionalProperties": item},
		func(d *decoder, n *node, path string, into *[]V) {
			if !d.isMap(n, path) {
				return
			}
			for i := range n.entries {
				e := &n.entries[i]
				d.checkName(m.name, e.name, e.at)
				v := m.make(e.name)
				bare := m.empty && e.value.kind == kindNull
				if !bare && d.present(e, join(path, e.name)) {
					m.item.read(d, e.value, join(path, e.name), &v)
				}
				*into = append(*into, v)
			}
		},
	}
}

// listOf is a list whose items are all of one shape; an item that is there twice is a mistake where unique is set.
func listOf[V comparable](item shape[V], unique bool) shape[[]V] {
	return shape[[]V]{
		schema{"type": "array", "items": item.schema, "minItems": 1, "uniqueItems": unique},
		func(d *decoder, n *node, path string, into *[]V) {
			if n.kind != kindList {
				d.add(n.at, "bad-type", fmt.Sprintf("%s must be a list, not %s", path, n), fmt.Sprintf("write [%s]", listHint(n)))
				return
			}
			if len(n.items) == 0 {
				d.add(n.at, "empty-list", path+" is an empty list", "name something in it, or remove the key")
				return
			}
			all := make([]V, 0, len(n.items))
			for _, i := range n.items {
				var v, zero V
				before := len(d.found)
				item.read(d, i, path, &v)
				switch {
				case len(d.found) > before || v == zero:
				case unique && slices.Contains(all, v):
					d.add(i.at, "duplicate-item", fmt.Sprintf("%s names %s twice", path, i), "keep one of the two")
				default:
					all = append(all, v)
				}
			}
			*into = all
		},
	}
}

func listHint(n *node) string {
	if n.scalar() {
		return short(n.text)
	}
	return "a, b"
}

// optional is a value that is nil until the file sets it.
func optional[V any](of shape[V], make func() V) shape[*V] {
	return shape[*V]{of.schema, func(d *decoder, n *node, path string, into **V) {
		v := make()
		of.read(d, n, path, &v)
		*into = &v
	}}
}

// shortForm is a map that may be written as the value of one of its keys, target; see lift.
func shortForm[V any](key, target string, long shape[V]) shape[V] {
	return shape[V]{
		schema{"anyOf": []any{long.schema["properties"].(schema)[target], long.schema}},
		func(d *decoder, n *node, path string, into *V) {
			if n.scalar() {
				n = lift(key, n)
			}
			long.read(d, n, path, into)
		},
	}
}

// orNull lets a schema's value be left out after its colon.
func orNull(s schema) schema { return schema{"anyOf": []any{s, schema{"type": "null"}}} }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
