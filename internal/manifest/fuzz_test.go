package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// FuzzParse asks that whatever the bytes, Parse gives either a manifest or faults that can be shown, never both and never
// a panic; and that a manifest holds what its users rely on.
func FuzzParse(f *testing.F) {
	for _, dir := range []string{"bad", "good"} {
		paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
		if err != nil || len(paths) == 0 {
			f.Fatalf("no corpus: %v", err)
		}
		for _, path := range paths {
			src, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src, "")
			f.Add(src, "prod")
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, env string) {
		m, err := Parse(src, "/srv/hozo.yaml", env)
		if (m == nil) == (err == nil) {
			t.Fatalf("manifest %v, error %v", m, err)
		}
		if err != nil {
			checkFaults(t, err)
			return
		}
		for _, s := range m.Services {
			if (s.Builtin == "") != (len(s.Run) > 0) || s.Scale < 1 || !filepath.IsAbs(s.Dir) {
				t.Errorf("service %+v", s)
			}
			for _, r := range s.Publishes {
				if (r.Stream == "") != r.Live {
					t.Errorf("%s publishes %s neither to a stream nor live, or both", s.Name, r.Subject)
				}
			}
			for _, c := range s.Consumes {
				if c.Stream == "" {
					t.Errorf("%s consumes %s from no stream", s.Name, c.Subject)
				}
			}
		}
	})
}

func checkFaults(t *testing.T, err error) {
	t.Helper()
	for _, one := range fault.Flatten(err) {
		e, ok := fault.As(one)
		if !ok || !strings.HasPrefix(e.Code, "manifest/") || e.Kind != fault.Misuse || e.What == "" || e.Fix == "" {
			t.Errorf("incomplete fault %+v", one)
		}
	}
	if len(fault.Render(err)) > maxMistakes*4096 {
		t.Error("the faults are too long to show")
	}
}

// TestHostileFilesAreReadInBoundedTime feeds what makes YAML parsers slow or deep. The bound is generous, for -race on a
// busy machine; without the limits of parseYAML some of these take minutes or end the process.
func TestHostileFilesAreReadInBoundedTime(t *testing.T) {
	t.Parallel()
	var manyKeys strings.Builder
	for i := range 9_900 {
		fmt.Fprintf(&manyKeys, "k%d: 1\n", i)
	}
	wide := "project: x\nservices:\n  a: { run: ./a, env: &e { "
	for i := range 4000 {
		wide += fmt.Sprintf("A%d: b, ", i)
	}
	wide += "} }\n"
	for i := range 400 {
		wide += fmt.Sprintf("  s%d: { run: ./s, env: *e }\n", i)
	}
	for name, src := range map[string]string{
		"keys": manyKeys.String(), "flow": strings.Repeat("[", maxSource), "maps": strings.Repeat("{a: ", maxSource/4), "dashes": strings.Repeat("- ", maxSource/2),
		"questions": strings.Repeat("? ", maxSource/2), "anchors": strings.Repeat("&a ", maxSource/3), "tags": strings.Repeat("!a ", maxSource/3), "aliases": "a: [" + strings.Repeat("*a, ", 10000) + "]",
		"line": "a: " + strings.Repeat("x", maxSource-3), "lines": strings.Repeat("\n", maxSource), "comments": strings.Repeat("# x\n", maxSource/4), "colons": strings.Repeat(": ", maxSource/2),
		"documents": strings.Repeat("---\n", maxSource/4), "percent": strings.Repeat("%", maxSource), "quotes": strings.Repeat(`"`, maxSource), "folded": "a: >\n" + strings.Repeat("  x\n", maxSource/4-2),
		"parentheses": "project: x\nservices: { a: { builtin: route, route: { rules: [{ when: '" + strings.Repeat("(", 500_000) + "' }] } } }",
		"wide":        wide,
		"nested":      "services:\n" + nested(5000),
		"command":     "project: x\nservices: { a: { run: '" + strings.Repeat("a ", 500_000) + "' } }",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse([]byte(src), "/srv/hozo.yaml", "prod")
			if err == nil {
				t.Fatal("accepted")
			}
			checkFaults(t, err)
			if took := time.Since(start); took > 2*time.Minute {
				t.Errorf("took %s", took)
			}
		})
	}
}

// nested is a block map of maps; it grows with the square of n, so Parse sees its start only.
func nested(n int) string {
	var b strings.Builder
	for i := range n {
		if b.Len() > maxSource/2 {
			break
		}
		b.WriteString(strings.Repeat(" ", i+1) + "a:\n")
	}
	return b.String()
}

func FuzzSplitWords(f *testing.F) {
	for _, seed := range []string{``, `a 'b c' "d\"e" f\ g`, `a && b`, `'`, `"`, `\`, `$A`, "a\\\nb"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err != nil {
			w, ok := err.(*wordError)
			if !ok || w.offset < 0 || w.offset >= len([]rune(line)) {
				t.Fatalf("%q: %#v", line, err)
			}
			return
		}
		quoted := make([]string, len(words))
		for i, word := range words {
			quoted[i] = quoteWord(word)
		}
		again, err := splitWords(strings.Join(quoted, " "))
		if err != nil || strings.Join(again, "\x00") != strings.Join(words, "\x00") {
			t.Fatalf("%q: %q is read back as %q, %v", line, words, again, err)
		}
	})
}

func FuzzParseBytes(f *testing.F) {
	for _, seed := range []string{"10GiB", "1.5KiB", "0", "-1", "1e9", "9223372036854775807", "1 mb", "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBytes(text)
		if err != nil {
			return
		}
		if again, err := ParseBytes(b.String()); b < 0 || err != nil || again != b {
			t.Fatalf("%q is %d, written %s, read back as %d, %v", text, int64(b), b, again, err)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"24h", "7d", "1d12h", "500ms", "0", "-1s", "106751d23h59m", "1d1d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDuration(text)
		if err != nil {
			return
		}
		if again, err := parseDuration(formatDuration(d)); d < 0 || err != nil || again != d {
			t.Fatalf("%q is %s, written %s, read back as %s, %v", text, d, formatDuration(d), again, err)
		}
	})
}
