package envfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/envfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDialect(t *testing.T) {
	t.Parallel()
	got, err := envfile.Parse("\uFEFF# comment\n; comment\n\nPLAIN=a b # c \r\n SPACED = x\nexport SHELL_STYLE=1\nexportED=2\nEMPTY=\n"+
		`SINGLE='a "b" \n $HOME'`+"\nMULTI='one\ntwo'\n"+`DOUBLE="a\tb\n\"c\" \$X \q"  # after`+"\nJOINED=\"a\\\nb\"\nURL=postgres://u:p=w@h/d?x=#1\nTWICE=1\nTWICE=2\nLAST=$HOME", "x.env")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"PLAIN": "a b # c", "SPACED": "x", "SHELL_STYLE": "1", "exportED": "2", "EMPTY": "", "SINGLE": `a "b" \n $HOME`, "MULTI": "one\ntwo",
		"DOUBLE": "a\tb\n\"c\" $X \\q", "JOINED": "ab", "URL": "postgres://u:p=w@h/d?x=#1", "TWICE": "2", "LAST": "$HOME",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMistakesHaveTheirPlaceAndNoValue(t *testing.T) {
	t.Parallel()
	_, err := envfile.Parse("A=1\n  no assignment hunter2\n1X=hunter2\nM='a\nb' hunter2\nB=\"hunter2\n", "/srv/x.env")
	var places []string
	for _, one := range fault.Flatten(err) {
		f, ok := fault.As(one)
		if !ok || f.Code != "envfile/syntax" || f.Kind != fault.Misuse || f.Fix == "" {
			t.Fatalf("%v", one)
		}
		places = append(places, f.Where)
	}
	want := []string{"/srv/x.env:2:3", "/srv/x.env:3:1", "/srv/x.env:5:4", "/srv/x.env:6:3"}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(fault.Render(err), "hunter2") {
		t.Error("a mistake shows a value")
	}
}

func TestMissingFileIsAMistakeUnlessItMayBe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none.env")
	if _, err := envfile.Load(path, false); fault.Code(err) != "envfile/unreadable" || fault.ExitCode(err) != 2 {
		t.Errorf("%v", err)
	}
	if got, err := envfile.Load(path, true); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := envfile.Load(t.TempDir(), true); err == nil {
		t.Error("a folder is taken for a file")
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("#\n", 1<<19)+"A=1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := envfile.Load(path, true); fault.Code(err) != "envfile/too-large" {
		t.Errorf("%v", err)
	}
}

// FuzzParse asks that whatever the bytes, either values come back that an environment can hold or faults with a place.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"A=1\n", "A='x\ny'", `A="\`, "export A=1", "=x", "A=\"b\"c", "\x00", "A=\x00", "é=1\nA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		values, err := envfile.Parse(src, "f")
		for name, value := range values {
			if name == "" || strings.ContainsAny(name, "=\x00 ") || strings.ContainsRune(value, 0) {
				t.Errorf("%q=%q", name, value)
			}
		}
		for _, one := range fault.Flatten(err) {
			if e, ok := fault.As(one); !ok || e.Where == "" || e.What == "" {
				t.Errorf("%v", one)
			}
		}
	})
}
