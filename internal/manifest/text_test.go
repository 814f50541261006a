package manifest

import (
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWordsAreSplitAsAShellWould(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		``:                              nil,
		"  \t\n ":                       nil,
		`./web --port 80`:               {"./web", "--port", "80"},
		`a 'b c' "d e"`:                 {"a", "b c", "d e"},
		`a'b'"c"d`:                      {"abcd"},
		`'' ""`:                         {"", ""},
		`a\ b \'c\'`:                    {"a b", "'c'"},
		`"a\"b\\c\$d\n"`:                {`a"b\c$d\n`},
		"\"a\\\nb\" c\\\nd":             {"ab", "cd"},
		`'$HOME | x' \| \$A`:            {"$HOME | x", "|", "$A"},
		`find . -name *.go ~ #x 5$ a=b`: {"find", ".", "-name", "*.go", "~", "#x", "5$", "a=b"},
		`sh -c 'a && b'`:                {"sh", "-c", "a && b"},
		"é ü":                           {"é", "ü"},
	} {
		got, err := splitWords(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q splits into %q (%v), want %q", line, got, err, want)
		}
	}
	for line, offset := range map[string]int{
		`a | b`: 2, `a&`: 1, `a;b`: 1, `<a`: 0, `>a`: 0, `(a)`: 0, "é `b`": 2, `a $B`: 2, `a "${B}"`: 3, `a "x $(b)"`: 5, `'a`: 0, `a "b`: 2, `a\`: 1, "a \"`\"": 3,
	} {
		_, err := splitWords(line)
		if w, ok := err.(*wordError); !ok || w.offset != offset {
			t.Errorf("%q gives %v, want a mistake at %d", line, err, offset)
		}
	}
}

func TestQuotedWordsAreReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.String(), 1, 8).Draw(t, "words")
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = quoteWord(w)
		}
		got, err := splitWords(strings.Join(quoted, " "))
		if err != nil || !reflect.DeepEqual(got, words) {
			t.Fatalf("%q is read back as %q, %v", words, got, err)
		}
	})
}

func TestSizesAreReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Min(0).Draw(t, "bytes")) << rapid.IntRange(0, 30).Draw(t, "shift")
		if b < 0 {
			b = math.MaxInt64
		}
		if got, err := ParseBytes(b.String()); err != nil || got != b {
			t.Fatalf("%d is written %s and read back as %d, %v", b, b, got, err)
		}
	})
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bytes{
		"0": 0, "1": 1, "10GiB": 10 << 30, "10 gib": 10 << 30, "1.5KiB": 1536, "1KB": 1000, "2TB": 2e12, "9223372036854775807": math.MaxInt64, " 5 MB ": 5e6, "0.001KB": 1,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5", "1.5B", "1e9", "1,000", "8EiB", "9223372036854775808", "1..5KiB", ".5KiB", "5.", "1/2KiB", "0x10", strings.Repeat("9", 1000), "１KiB"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is accepted as %d", text, got)
		}
	}
	for b, want := range map[Bytes]string{0: "0B", 1: "1B", 1001: "1001B", 1536: "1536B", 2048: "2KiB", 1 << 30: "1GiB", 3000: "3KB", 1e12: "1TB", math.MaxInt64: "9223372036854775807B"} {
		if got := b.String(); got != want {
			t.Errorf("%d is written %q, want %q", int64(b), got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "500ms": 500 * time.Millisecond, "24h": day, "7d": 7 * day, "1d12h": 36 * time.Hour, "1m30s": 90 * time.Second, "1.5h": 90 * time.Minute,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%q is %s (%v), want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "10", "1 day", "-5m", "1d-5m", "1.5d", "106752d", "106751d23h59m", "1h1d", "∞"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q is accepted as %s", text, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", 36 * time.Hour: "36h", 7 * day: "7d", time.Millisecond: "1ms"} {
		if got := formatDuration(d); got != want {
			t.Errorf("%s is written %q, want %q", d, got, want)
		}
	}
}

// TestNamePatternsSayWhatNamesAre holds the schema's patterns and the functions that Parse uses together; the functions
// bound the whole length as well.
func TestNamePatternsSayWhatNamesAre(t *testing.T) {
	t.Parallel()
	for _, rule := range []nameRule{plainName(), dottedName(), subjectName(), identifier("name")} {
		pattern := regexp.MustCompile(rule.pattern)
		rapid.Check(t, func(t *rapid.T) {
			s := rapid.StringMatching(`[a-zA-Z0-9_.*>é -]{0,12}|`+rule.pattern).Draw(t, "name")
			if ok := rule.ok(s); ok != pattern.MatchString(s) && len(s) <= maxSubject {
				t.Fatalf("%q: Parse says %v, the schema the opposite", s, ok)
			}
		})
	}
}

func TestDistanceCountsSlips(t *testing.T) {
	t.Parallel()
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"abc", "abc"}: 0, {"scael", "scale"}: 1, {"publish", "publishes"}: 2, {"kitten", "sitting"}: 3, {"", "abc"}: 3, {"é", "e"}: 1,
	} {
		if got := distance(pair[0], pair[1]); got != want {
			t.Errorf("distance(%q, %q) is %d, want %d", pair[0], pair[1], got, want)
		}
	}
	if got := closest("to", []string{"run", "go"}); got != "go" {
		t.Errorf("to is near %q", got)
	}
	if got := closest("x", []string{"a", "b"}); got != "" {
		t.Errorf("x is near %q", got)
	}
}

func TestConditionsReadFieldsNamedLikeFunctions(t *testing.T) {
	t.Parallel()
	for _, when := range []string{`type == "PushEvent"`, `count > 3 and len(items) == 0`, `actor?.login startsWith "a"`, `any(items, .id == 1)`, `public`, `lower(type) == "x"`} {
		if _, err := CompileCondition(when); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	for when, column := range map[string]int{`type ==`: 7, `1 + 1`: 1, `a and nosuch(3)`: 7, `é == "x" and )`: 14} {
		_, err := CompileCondition(when)
		if e, ok := err.(*ConditionError); !ok || e.Line != 1 || e.Column != column {
			t.Errorf("%s: %v, want a mistake at column %d", when, err, column)
		}
	}
	if _, err := CompileCondition(strings.Repeat("(", maxCondition+1)); err == nil {
		t.Error("an expression beyond the bound is accepted")
	}
	if _, err := CompileCondition(strings.Repeat("(", maxCondition)); err == nil {
		t.Error("an open expression is accepted")
	}
}
