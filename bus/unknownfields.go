package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// Keep is a value of T, a struct, together with the fields of its JSON object that T does not know. They are written
// back, so that a program that is older than its events passes on what it does not understand:
//
//	var in, out = bus.NewTopic[bus.Keep[order]]("orders"), bus.NewTopic[bus.Keep[order]]("orders.checked")
//
//	func check(_ context.Context, e bus.Event[bus.Keep[order]], o *bus.Out) error {
//		e.Value.Value.Checked = true
//		return out.Send(o, e.Value)
//	}
//
// It sees one level: a struct inside T keeps its own unknown fields when it is a Keep too. Known fields come first, in
// the order of T, then the unknown ones in their order. A program that changes nothing needs none of this: it sends
// Event.Data.
type Keep[T any] struct {
	Value T

	unknown []member
}

// member is one name of a JSON object and its value.
type member struct {
	name  string
	value json.RawMessage
}

// Unknown returns the value of a field that T does not know, or nil.
func (k Keep[T]) Unknown(name string) json.RawMessage {
	for _, m := range k.unknown {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// UnmarshalJSON reads an object.
func (k *Keep[T]) UnmarshalJSON(data []byte) error {
	k.unknown = nil
	if err := json.Unmarshal(data, &k.Value); err != nil {
		return err
	}
	known := fieldsOf(reflect.TypeFor[T]())
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return err // null, or what a T that is no struct takes
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		if text, ok := name.(string); ok && !known[strings.ToLower(text)] {
			k.unknown = append(k.unknown, member{text, value})
		}
	}
	return nil
}

// MarshalJSON writes the object with all its fields.
func (k Keep[T]) MarshalJSON() ([]byte, error) {
	data, err := json.Marshal(k.Value)
	if err != nil || len(k.unknown) == 0 {
		return data, err
	}
	if len(data) < 2 || data[0] != '{' {
		return nil, fmt.Errorf("fields that %T does not know have no place in %.20s", k.Value, data)
	}
	data = data[:len(data)-1]
	for _, m := range k.unknown {
		if len(data) > 1 {
			data = append(data, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		data = append(append(append(data, name...), ':'), m.value...)
	}
	return append(data, '}'), nil
}

// knownFields remembers fieldsOf by type.
var knownFields sync.Map // reflect.Type → map[string]bool

// fieldsOf returns the names, in lower case because encoding/json takes any, that a struct is read from.
func fieldsOf(t reflect.Type) map[string]bool {
	if have, ok := knownFields.Load(t); ok {
		return have.(map[string]bool)
	}
	names := map[string]bool{}
	addFields(names, t, map[reflect.Type]bool{})
	have, _ := knownFields.LoadOrStore(t, names)
	return have.(map[string]bool)
}

func addFields(names map[string]bool, t reflect.Type, seen map[reflect.Type]bool) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	seen[t] = true
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-":
		case f.Anonymous && name == "":
			addFields(names, f.Type, seen)
		case !f.IsExported():
		case name == "":
			names[strings.ToLower(f.Name)] = true
		default:
			names[strings.ToLower(name)] = true
		}
	}
}
