package manifest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scalar reads one value that parse understands; want says what it should be, code what the mistake is called.
func scalar[V any](s schema, code, want string, parse func(text string) (V, error)) shape[V] {
	return shape[V]{s, func(d *decoder, n *node, path string, into *V) {
		if !n.scalar() {
			d.add(n.at, "bad-type", fmt.Sprintf("%s must be %s, not %s", path, want, n), "write one value")
			return
		}
		v, err := parse(n.text)
		if err != nil {
			d.add(n.at, code, fmt.Sprintf("%s: %s", path, err), "write "+want)
			return
		}
		*into = v
	}}
}

// text is any text but none.
func text() shape[string] {
	return scalar(schema{"type": "string", "minLength": 1}, "bad-text", "some text", func(s string) (string, error) {
		if strings.TrimSpace(s) == "" {
			return "", fmt.Errorf("the text is empty")
		}
		return s, nil
	})
}

// nameText is a name that follows a rule.
func nameText(rule nameRule) shape[string] {
	return shape[string]{schema{"type": "string", "pattern": rule.pattern}, func(d *decoder, n *node, path string, into *string) {
		if !n.scalar() {
			d.add(n.at, "bad-type", fmt.Sprintf("%s must be a name, not %s", path, n), "write one name")
			return
		}
		if d.checkName(rule, n.text, n.at) {
			*into = n.text
		}
	}}
}

func boolean() shape[bool] {
	s := shape[bool]{schema: schema{"type": "boolean"}}
	s.read = func(d *decoder, n *node, path string, into *bool) {
		if n.kind != kindBool {
			d.add(n.at, "bad-type", fmt.Sprintf("%s must be true or false, not %s", path, n), "write true or false")
			return
		}
		*into = strings.EqualFold(n.text, "true")
	}
	return s
}

// whole is a whole number from least to most.
func whole(least, most int) shape[int] {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	s := shape[int]{schema: schema{"type": "integer", "minimum": least, "maximum": most}}
	s.read = func(d *decoder, n *node, path string, into *int) {
		v, err := strconv.Atoi(n.text)
		if n.kind != kindNumber || err != nil || v < least || v > most {
			d.add(n.at, "bad-number", fmt.Sprintf("%s must be %s, not %s", path, want, n), "write "+want)
			return
		}
		*into = v
	}
	return s
}

// size is a number of bytes from least upwards.
func size(least Bytes) shape[Bytes] {
	return scalar(
		schema{"anyOf": []any{
			schema{"type": "integer", "minimum": int64(least)},
			schema{"type": "string", "pattern": `^\s*[0-9]+(\.[0-9]+)?\s*([KMGTkmgt]?[iI]?[bB])?\s*$`},
		}},
		"bad-size", fmt.Sprintf("a size like 10GiB, at least %s", least),
		func(s string) (Bytes, error) {
			v, err := ParseBytes(s)
			if err == nil && v < least {
				err = fmt.Errorf("%s is less than %s", short(s), least)
			}
			return v, err
		})
}

// span is a duration from least to most.
func span(least, most time.Duration) shape[time.Duration] {
	bounds := fmt.Sprintf("from %s to %s", formatDuration(least), formatDuration(most))
	if most == maxSpan {
		bounds = "at least " + formatDuration(least)
	}
	return scalar(
		schema{"type": []any{"string", "integer"}, "minLength": 1, "maximum": 0, // 0 is the only duration without a unit
			"pattern": `^\s*(0|([0-9]+d)?([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))*)\s*$`},
		"bad-duration", fmt.Sprintf("a duration like %s, %s", formatDuration(max(least, min(most, 10*time.Second))), bounds),
		func(s string) (time.Duration, error) {
			v, err := parseDuration(s)
			if err == nil && (v < least || v > most) {
				err = fmt.Errorf("%s is out of bounds: %s", short(s), bounds)
			}
			return v, err
		})
}

// oneOf is one of a few words.
func oneOf[S ~string](words ...S) shape[S] {
	var names []string
	var values []any
	for _, w := range words {
		names, values = append(names, string(w)), append(values, string(w))
	}
	return shape[S]{schema{"enum": values}, func(d *decoder, n *node, path string, into *S) {
		if n.scalar() && slices.Contains(names, n.text) {
			*into = S(n.text)
			return
		}
		d.add(n.at, "unknown-value", fmt.Sprintf("%s must be one of %s, not %s", path, strings.Join(names, ", "), n), orKnown(n.text, names, "the value"))
	}}
}

// filePath is a path; a relative one starts at the manifest's folder.
func filePath() shape[string] {
	of := text()
	return shape[string]{of.schema, func(d *decoder, n *node, path string, into *string) {
		var v string
		of.read(d, n, path, &v)
		if v == "" {
			return
		}
		if !filepath.IsAbs(v) {
			v = filepath.Join(d.dir, v)
		}
		*into = filepath.Clean(v)
	}}
}

// table is a map of texts under names of the user's.
func table(names nameRule, value shape[string]) shape[map[string]string] {
	return shape[map[string]string]{
		schema{"type": "object", "propertyNames": schema{"pattern": names.pattern}, "additionalProperties": value.schema},
		func(d *decoder, n *node, path string, into *map[string]string) {
			if !d.isMap(n, path) {
				return
			}
			out := make(map[string]string, len(n.entries))
			for i := range n.entries {
				e := &n.entries[i]
				if !d.checkName(names, e.name, e.at) || !d.present(e, join(path, e.name)) {
					continue
				}
				v := ""
				value.read(d, e.value, join(path, e.name), &v)
				out[e.name] = v
			}
			*into = out
		},
	}
}

// plain is any scalar, as it is written.
func plain() shape[string] {
	return scalar(schema{"type": []any{"string", "number", "boolean"}}, "bad-text", "text, a number, true or false", func(s string) (string, error) { return s, nil })
}
