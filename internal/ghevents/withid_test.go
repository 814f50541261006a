package ghevents_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/ghevents"
)

func TestWithIDReplacesOnlyTheTopLevelID(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"id":"1","a":2}` + "\n": `{"id":"x9","a":2}` + "\n",
		`{"id":17}`:               `{"id":"x9"}`,
		`{ "a" : {"id":1}, "id" : null , "b": [1]}`:                 `{ "a" : {"id":1}, "id" : "x9" , "b": [1]}`,
		`{"a":"\"id\":1","b":["}",{"id":3}],"id":{"deep":1},"c":1}`: `{"a":"\"id\":1","b":["}",{"id":3}],"id":"x9","c":1}`,
		`{"a":1}`:    `{"id":"x9","a":1}`,
		`{}`:         `{"id":"x9"}`,
		` { } `:      ` {"id":"x9" } `,
		`[1,2]`:      `[1,2]`,
		``:           ``,
		`{"a":"id"}`: `{"id":"x9","a":"id"}`,
	} {
		if got := string(ghevents.WithID(nil, []byte(line), "x9")); got != want {
			t.Errorf("WithID(%s) = %s, want %s", line, got, want)
		}
	}
}

func TestWithIDAppends(t *testing.T) {
	t.Parallel()
	if got := string(ghevents.WithID([]byte("before "), []byte(`{"id":1}`), "2")); got != `before {"id":"2"}` {
		t.Errorf("got %s", got)
	}
}

// Whatever valid object comes in, the result is that object with another id.
func FuzzWithID(f *testing.F) {
	for _, seed := range []string{`{"id":"1","type":"PushEvent"}`, `{}`, `{"a":{"id":[{}]},"id":-1.5e3}`, `{"a":"\\","id":true}`, `{"id"`, `{"a":}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got := ghevents.WithID(nil, line, "new") // must not panic on anything
		var before, after map[string]any
		if json.Unmarshal(line, &before) != nil || before == nil {
			return
		}
		if strings.Count(string(line), `"id"`) > 1 || strings.Contains(string(line), `\u`) {
			return // repeated or escaped keys: which one counts differs between readers
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s became %s: %v", line, got, err)
		}
		before["id"] = "new"
		if _, nested := after["id"]; !nested || after["id"] != "new" {
			t.Fatalf("%s became %s", line, got)
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%s became %s", line, got)
		}
	})
}
