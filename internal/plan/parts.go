package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// Parts says what a Spec is made of, as a digest for each key of the manifest: "run", "env.LOG_LEVEL", "health.interval".
// Two Parts tell which keys differ, and nothing of the values: Parts are kept beside processes and shown to people, and
// a value may be a secret. A digest has 32 bits, which is enough to name a key; whether anything changed at all is for
// [Spec.Hash] to say.
type Parts map[string]string

// keyOf names the manifest's key of a field where that is not the field's own name.
var keyOf = map[string]string{
	"Argv": "run", "UID": "user", "GID": "user", "Groups": "user", "Binary": "program", "Wiring": "", "Node": "",
}

// Cold returns the parts that are fixed when the process starts.
func (s Spec) Cold() Parts {
	c := s.cold()
	parts := make(Parts)
	for _, line := range c.Env {
		parts.put("env."+key(line), line) // of two lines with one key the later one counts
	}
	for _, l := range c.Listen {
		parts.put("listen."+l.Name, l)
	}
	c.Name, c.Service, c.Env, c.Listen = "", "", nil, nil
	parts.flatten("", reflect.ValueOf(c))
	return parts
}

// Hot returns the parts that can change under a running process.
func (s Spec) Hot() Parts {
	parts := make(Parts)
	parts.flatten("", reflect.ValueOf(s.hot()))
	return parts
}

// flatten adds everything below v that is not zero: a key that is missing and one that is zero mean the same.
func (p Parts) flatten(prefix string, v reflect.Value) {
	switch {
	case v.IsZero():
	case v.Kind() == reflect.Pointer:
		p.flatten(prefix, v.Elem())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			own, ok := keyOf[name]
			if !ok {
				own = snake(name)
			}
			p.flatten(dotted(prefix, own), v.Field(i))
		}
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		for _, k := range v.MapKeys() {
			p.put(dotted(prefix, k.String()), v.MapIndex(k).Interface())
		}
	default:
		p.put(prefix, v.Interface())
	}
}

// put adds a value under a key; several values under one key are digested together.
func (p Parts) put(key string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("plan: internal error: a spec that JSON cannot hold: " + err.Error())
	}
	sum := sha256.Sum256(append([]byte(p[key]), b...))
	if strings.HasPrefix(key, "env.") {
		sum = sha256.Sum256(b)
	}
	p[key] = hex.EncodeToString(sum[:4])
}

// Changed returns the keys in which two values of one struct type differ.
func Changed(before, after any) []string {
	a, b := make(Parts), make(Parts)
	a.flatten("", reflect.ValueOf(before))
	b.flatten("", reflect.ValueOf(after))
	return changed(a, b)
}

// changed returns the keys in which two Parts differ, in order. Four keys or more of one section become the section.
func changed(before, after Parts) []string {
	var keys []string
	sections := make(map[string]int)
	for _, k := range slices.Sorted(maps.Keys(union(before, after))) {
		if before[k] != after[k] {
			keys = append(keys, k)
			section, _, found := strings.Cut(k, ".")
			if found && section != "env" {
				sections[section]++
			}
		}
	}
	var short []string
	for _, k := range keys {
		if section, _, _ := strings.Cut(k, "."); sections[section] > 3 {
			k = section
		}
		if !slices.Contains(short, k) {
			short = append(short, k)
		}
	}
	return short
}

func union(a, b Parts) Parts {
	all := maps.Clone(a)
	if all == nil {
		all = make(Parts)
	}
	maps.Copy(all, b)
	return all
}

func dotted(prefix, name string) string {
	switch {
	case prefix == "":
		return name
	case name == "":
		return prefix
	}
	return prefix + "." + name
}

// snake writes a field's name as the manifest does: MaxBytes as max_bytes, HTTP as http.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if unicode.IsUpper(r) {
			next := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if i > 0 && (unicode.IsLower(runes[i-1]) || next) {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
