package manifest_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/hozo-dev/hozo/internal/manifest"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := manifest.Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7) // so that $schema is what makes it 2020-12
	if err := c.AddResource("hozo.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("hozo.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// instance reads YAML as an editor's validator does.
func instance(t *testing.T, src string) any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestSchemaAcceptsEveryGoodManifest(t *testing.T) {
	t.Parallel()
	compiled := compiledSchema(t)
	for name, src := range cases(t, "good") {
		if err := compiled.Validate(instance(t, src)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSchemaRejectsWhatOneValueShows takes the mistakes that can be seen without looking at another part of the file.
func TestSchemaRejectsWhatOneValueShows(t *testing.T) {
	t.Parallel()
	compiled := compiledSchema(t)
	bad := cases(t, "bad")
	for _, name := range []string{
		"no-project", "not-a-map", "unknown-keys", "bad-names", "no-command", "two-programs", "unknown-builtin", "no-values",
		"durations", "sizes", "enums", "numbers", "booleans", "wrong-types", "lists", "bad-subjects", "listen", "environments", "long-lines",
		"schedules", "hooks", "env-files",
	} {
		if err := compiled.Validate(instance(t, bad[name])); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestSchemaAndParseAgreeOnValues holds the two readings of a value together at their edges.
func TestSchemaAndParseAgreeOnValues(t *testing.T) {
	t.Parallel()
	compiled := compiledSchema(t)
	for _, c := range []struct {
		key    string
		values map[string]bool
	}{
		{"stop", map[string]bool{"10s": true, "0": true, "1m30s": true, `"0"`: true, "1.5s": true, "10": false, "{ grace: 1 }": false, "{ grace: 30m }": true, "ten": false}},
		{"scale", map[string]bool{"1": true, "256": true, "0": false, "257": false, `"2"`: false}},
		{"log", map[string]bool{"{ max_bytes: 4096 }": true, "{ max_bytes: 4095 }": false, "{ max_bytes: 4 kib }": true, "{ max_bytes: 5x }": false, "{ keep: 0 }": true}},
		{"restart", map[string]bool{"never": true, "{ delay: 0 }": true, "{ policy: nevr }": false, "[never]": false}},
		{"health", map[string]bool{"notify": true, "https://x.test/": true, "{ notify: true, grace: 1d }": true, "{ notify: false }": false}},
		{"needs", map[string]bool{"{ b: started }": true, "[b]": true, "b": false, "{ b: done }": false, "[B]": false}},
		{"env", map[string]bool{"{ A: 1, b_2: x, C: true }": true, "{ 1A: x }": false, "{ A: [] }": false}},
		{"run", map[string]bool{"./x": true, "[./x, 1]": true, "[]": false, "7": false, "{}": false}},
	} {
		for value, want := range c.values {
			run := "run: ./web, "
			if c.key == "run" {
				run = ""
			}
			src := "project: shop\nservices:\n  web: { " + run + c.key + ": " + value + " }\n  b: { run: ./b }\n"
			inSchema := compiled.Validate(instance(t, src)) == nil
			_, err := parse(src)
			if accepted := err == nil; accepted && !inSchema {
				t.Errorf("%s: %s is accepted by Parse and not by the schema", c.key, value)
			}
			if inSchema != want {
				t.Errorf("%s: %s in schema: %v, want %v", c.key, value, inSchema, want)
			}
		}
	}
}

func TestSchemaDescribesEveryKey(t *testing.T) {
	t.Parallel()
	data, err := manifest.Schema()
	if err != nil {
		t.Fatal(err)
	}
	var root any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	described := 0
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case []any:
			for _, one := range v {
				walk(path, one)
			}
		case map[string]any:
			properties, _ := v["properties"].(map[string]any)
			for _, name := range slices.Sorted(maps.Keys(properties)) {
				p, _ := properties[name].(map[string]any)
				if doc, _ := p["description"].(string); doc == "" {
					t.Errorf("%s.%s has no description", path, name)
				}
				described++
				walk(path+"."+name, p)
			}
			for k, one := range v {
				if k != "properties" {
					walk(path, one)
				}
			}
		}
	}
	walk("", root)
	if described < 100 {
		t.Errorf("only %d keys found: the walk has missed some", described)
	}
}
