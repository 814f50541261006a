package conf

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// comparable keeps inputs to what a file can hold and both sides define alike: Python's tables of characters are of
// another version of Unicode than Go's, so letters beyond ASCII are a fixed few.
func comparable(s string) bool {
	if !utf8.ValidString(s) || len(s) > 1000 {
		return false
	}
	for _, r := range s {
		if r >= 0x80 && !strings.ContainsRune("äß京\u00a0\u2028\u3000", r) || r == 0 {
			return false
		}
	}
	return true
}

// agree fails t unless both sides give the same value, or both an error in the same words.
func agree(t *testing.T, input string, ours any, err error, theirs reply) {
	t.Helper()
	switch {
	case err != nil && theirs.Error != nil:
		if err.Error() != *theirs.Error {
			t.Fatalf("for %q\n ours  %s\n theirs %s", input, err, *theirs.Error)
		}
	case err != nil:
		t.Fatalf("for %q ours is the error %q, theirs %s", input, err, theirs.Value)
	case theirs.Error != nil:
		t.Fatalf("for %q ours is %v, theirs the error %q", input, ours, *theirs.Error)
	default:
		equal(t, input, ours, theirs.Value)
	}
}

func FuzzFormatIsPythons(f *testing.F) {
	for _, s := range []string{
		"", "plain", "%%", "%", "%(", "%(a", "%(a)", "%(a)s", "%(n)d", "%(n)02d", "%(n)05d|%(n)-5d|%(n)+d|% d", "%(a)10s", "%(a)-10s|",
		"%(a).2s", "%(a)r", "%(a)a", "%(b)a", "%(n)x%(n)#X%(n)o%(n)#o", "%(n)c", "%(a)c", "%(n)f", "%(n).2e", "%(n)g", "%(n)G", "%(missing)s", "%(a)y",
		"%H:%M", "%d", "%(a)d", "%(a)%", "%(a)%%s", "%5%", "%(n)*d", "%(a)*d", "%((a))s", "%()s", "%(n)ld", "%(n)hhd", "%.", "%.*d", "%(n).3d",
		"%(n)i", "%(n)u", "%(a)x", "%(a)i", "%(a)f", "%(京)s", "%(n)#.0f", "%(n)+05d", "%(n) d", "%(a)05s", "%(n)99999d", "ä%z",
	} {
		f.Add(s)
	}
	o := newOracle(f)
	all := names{"a": textValue("it's"), "b": textValue("京\n"), "n": intValue(42), "m": intValue(-7), "": textValue("empty"), "(a)": textValue("nested")}
	sent := map[string]any{"a": "it's", "b": "京\n", "n": 42, "m": -7, "": "empty", "(a)": "nested"}
	f.Fuzz(func(t *testing.T, s string) {
		if !comparable(s) {
			return
		}
		out, err := format(s, all)
		if bare := bareVerbError(""); errors.As(err, &bare) || err != nil && strings.HasSuffix(err.Error(), " too big") || strings.Contains(s, "*") {
			return // refused here on purpose: Python would write out the whole mapping, or as much as it is told
		}
		agree(t, s, out, err, o.ask(t, map[string]any{"ask": "format", "text": s, "names": sent}))
	})
}

func FuzzSplitIsShlex(f *testing.F) {
	for _, s := range []string{"", "a b", `a 'b c' "d e"`, `a\ b`, `"a\"b\c\\"`, `'a\'`, `"`, `'`, `\`, `""`, `a""b ''`, "a\tb\nc\rd", `a # b`, `"a\`, "京 ä"} {
		f.Add(s)
	}
	o := newOracle(f)
	f.Fuzz(func(t *testing.T, s string) {
		if !comparable(s) {
			return
		}
		words, err := Split(s)
		if words == nil {
			words = []string{}
		}
		agree(t, s, words, err, o.text(t, "split", s))
	})
}

func FuzzPairsAreSupervisors(f *testing.F) {
	for _, s := range []string{
		"", "A=1", `A="1",B='2'`, `A="x, y",B=z`, "A=1,", "A=1 B=2", "A", "A=", "=", "A==1", `A=x"y"z`, `A="`, "A=a#b\nc,B=2", "# all\nA=1",
		"PATH=/a:/b+c.d-(e)", "A=ä", "A=1,B", `A="",B=1`, `A=''"",B=1`, "A=%(x)s", "A=1;B=2",
	} {
		f.Add(s)
	}
	o := newOracle(f)
	f.Fuzz(func(t *testing.T, s string) {
		if !comparable(s) {
			return
		}
		all, err := pairs(s)
		merged := [][2]string{}
		for _, pair := range all { // a repeated key keeps its place and takes the last value
			found := false
			for i := range merged {
				if merged[i][0] == pair[0] {
					merged[i][1], found = pair[1], true
				}
			}
			if !found {
				merged = append(merged, pair)
			}
		}
		agree(t, s, merged, err, o.text(t, "pairs", s))
	})
}

func FuzzDocumentIsConfigParsers(f *testing.F) {
	for _, s := range []string{
		"", "[a]\nb=c\n", "[a]\nB : c ; d\n", "[a]\nb=c;d\n#x\n ;y\n", "[a]\nb=c\n d\n\n e\nf=g\n", "x\n[a]\n", "[a]\nb\n=c\n", "[a]\n=\n  d\n", "[a]\nb=1\nb=2\n[a]\nb=3",
		"[DEFAULT]\nx=1\n[a]\ny=2\n", "[a] junk ]\nb=c", "[]\n[ ]\nx=1", "[a]\r\nb=c\r d\n", "[a]\nb=x;y ;z #w\n", "\ufeff[a]\n", " [a]\n  b=1\n c=2\n   d=3\n", "[a]\nb=\n  c\n  # no\n  d\n",
		"[a]\nb = c = d : e\n", "[a]\nb=c\n[b]\n  x=y\n", "[a]\nb=1 \n\n\n[c]\n", "[a]\u00a0\nb\u3000=\u2028c\n", ";\n#\n[a];c\nb=;\n", "[a\nb=c\n", "[a]\nb\x1f=\x1cc\n",
	} {
		f.Add(s, "")
	}
	f.Add("[a]\nb=1\n", "[a]\nc=2\nb=3\n[d]\n")
	o := newOracle(f)
	f.Fuzz(func(t *testing.T, first, second string) {
		if !comparable(first) || !comparable(second) {
			return
		}
		doc := newDocument()
		var bad []syntaxError
		for _, text := range []string{first, second} {
			if bad = doc.read(text, "f", "f"); bad != nil {
				break
			}
		}
		theirs := o.ask(t, map[string]any{"ask": "ini", "texts": []string{first, second}})
		if bad != nil {
			if theirs.Error == nil || *theirs.Error != bad[0].message {
				t.Fatalf("for %q + %q\n ours  %s\n theirs %s", first, second, bad[0].message, theirs.raw)
			}
			return
		}
		ours := [][]any{}
		for _, s := range doc.sections {
			items := [][2]string{}
			for _, key := range doc.defaults.order {
				v, _ := doc.get(s, key)
				items = append(items, [2]string{key, v.value})
			}
			for _, key := range s.order {
				if _, isDefault := doc.defaults.options[key]; !isDefault {
					items = append(items, [2]string{key, s.options[key].value})
				}
			}
			ours = append(ours, []any{s.name, items})
		}
		if theirs.Error != nil {
			t.Fatalf("for %q + %q theirs is the error %s", first, second, *theirs.Error)
		}
		equal(t, first+"|"+second, ours, theirs.Sections)
	})
}

func FuzzTypesAreSupervisors(f *testing.F) {
	for _, s := range []string{
		"", "0", "1", "-1", "+1", " 7 ", "1_000", "1__0", "_1", "1_", "0x10", "1e3", "007", "0o17", "0o_7", "0O7", "8", "- 1", "--1", "1KB", "1 MB", "2gb", "kb", "-1kb", "1.5MB",
		"TERM", "sigterm", " usr1 ", "SIGRTMIN", "SIGCLD", "15", "32", "64", "0", "99", "KILL9", "9001", ":9001", "*:9001", "Host:80", "::1:80", "localhost:", "a:b", "65536",
	} {
		f.Add(s)
	}
	o := newOracle(f)
	f.Fuzz(func(t *testing.T, s string) {
		if !comparable(s) || len(s) > 40 {
			return
		}
		n, err := parseInt(s, 10)
		if errors.Is(err, errRange) {
			return
		}
		agree(t, s, n, words(err, notInt(s)), o.text(t, "integer", s))
		if n, err = parseInt(s, 8); !errors.Is(err, errRange) {
			agree(t, s, n, words(err, s+" can not be converted to an octal type"), o.text(t, "octal", s))
		}
		if n, err = byteSize(s); !errors.Is(err, errRange) {
			theirs := o.text(t, "bytes", s)
			if (err == nil) != (theirs.Error == nil) {
				t.Fatalf("bytes of %q: ours %d, %v, theirs %s", s, n, err, theirs.raw)
			} else if err == nil {
				equal(t, s, n, theirs.Value)
			}
		}
		sig, err := ParseSignal(s)
		if !strings.HasPrefix(strings.ToUpper(strings.TrimLeftFunc(s, unicode.IsSpace)), "SIG_") && !strings.HasPrefix(strings.ToUpper(strings.TrimLeftFunc(s, unicode.IsSpace)), "_") {
			agree(t, s, sig, err, o.text(t, "signal", s)) // Python's module has SIG_DFL and its like, which are no signals
		}
		host, port, err := inetAddress(s)
		agree(t, s, []any{host, port}, err, o.text(t, "address", s))
		agree(t, s, repr(s), nil, o.text(t, "repr", s))
	})
}

func words(err error, w string) error {
	if err == nil {
		return nil
	}
	return errors.New(w)
}

func FuzzMatchIsFnmatch(f *testing.F) {
	for _, c := range [][2]string{{"*.conf", "a.conf"}, {"[!a]*", "b"}, {"[]]", "]"}, {"[a-c]?", "bx"}, {"[", "["}, {"a**b", "axyb"}, {"[a", "[a"}, {"[^a]", "^"}, {"[b-a]", "a"}, {`\*`, `\x`}, {"*a*b*c", "xxaybzc"}} {
		f.Add(c[0], c[1])
	}
	o := newOracle(f)
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if !comparable(pattern) || !comparable(name) {
			return
		}
		theirs := o.ask(t, map[string]any{"ask": "match", "text": pattern, "name": name})
		equal(t, pattern+" "+name, matches([]rune(pattern), []rune(name)), theirs.Value)
	})
}

// FuzzLoad asks that whatever the file, Load gives either a configuration or faults, never both and never a panic.
func FuzzLoadMarshals(f *testing.F) {
	f.Add("[supervisord]\n[program:x]\ncommand=x\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, _, err := loadText(t, text)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", c, err)
		}
		if err != nil && Message(err) == "" {
			t.Fatalf("an error without words: %#v", err)
		}
		if _, err := json.Marshal(c); err != nil {
			t.Fatal(err)
		}
	})
}
