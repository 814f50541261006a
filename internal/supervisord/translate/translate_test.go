package translate_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/supervisord/conf"
	"github.com/hozo-dev/hozo/internal/supervisord/translate"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var options = conf.Options{Environ: []string{"HOME=/root", "PATH=/usr/bin:/bin", "WHERE=he"}, NodeName: "host"}

func load(t testing.TB, path string) *conf.Config {
	t.Helper()
	c, _, err := conf.Load(path, options)
	if err != nil {
		t.Fatal(fault.Render(err))
	}
	return c
}

// Every configuration of the corpus becomes a manifest that Hozo accepts and that reads as it did before.
func TestManifestsAreAccepted(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../conf/testdata/good/*.conf")
	if err != nil || len(paths) == 0 || len(more) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, path := range append(paths, more...) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			here, err := filepath.Abs(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			c := load(t, path)
			c.Supervisord.Identifier = strings.ReplaceAll(c.Supervisord.Identifier, here, "here") // the project is named by it
			text := translate.Manifest(c)
			if _, err := manifest.Parse([]byte(text), "hozo.yaml", ""); err != nil && !strings.Contains(text, "services: {}") {
				t.Errorf("%s\n%s", fault.Render(err), text)
			}
			golden(t, filepath.Join("testdata", strings.TrimSuffix(filepath.Base(path), ".conf")+".yaml"), strings.ReplaceAll(text, here, "$HERE"))
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// FuzzCommand asks that any command becomes a list of the words that Supervisor would run.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{`a b`, `"a b" 'c' d\ e`, `x "q\"uote" '#' "{}" ':' "- a" '\n'`, "a \u2028 \x07 b", "true", "~ null 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, command string) {
		words, err := conf.Split(command)
		if err != nil || len(words) == 0 || words[0] == "" || strings.ContainsAny(command, "\x00\ufffd") || len(command) > 1000 {
			return
		}
		c := &conf.Config{File: "/x/supervisord.conf", Here: "/x", Groups: []conf.Group{{Name: "p", Priority: 999, Programs: []conf.Program{{
			Name: "p", Group: "p", Section: "program:p", Count: 1, Command: command, Umask: -1, UID: -1, Priority: 999, AutoStart: true, StartSecs: 1,
			StopSignal: 15, StopWaitSecs: 10, ExitCodes: []int{0}, Stdout: conf.Log{MaxBytes: 50 << 20, Backups: 10},
		}}}}}
		text := translate.Manifest(c)
		m, err := manifest.Parse([]byte(text), "hozo.yaml", "")
		if err != nil {
			if strings.Contains(fault.Render(err), "manifest/bad-command") {
				return // words that Hozo refuses in any spelling
			}
			t.Fatalf("%s\n%s", fault.Render(err), text)
		}
		got := m.Services[0].Run
		if len(got) != len(words) {
			t.Fatalf("%q became %q", words, got)
		}
		for i := range got {
			if got[i] != words[i] {
				t.Fatalf("%q became %q", words, got)
			}
		}
	})
}
