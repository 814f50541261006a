package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// corpusDir is where the corpus is said to stand, so that golden files hold no path of this machine.
const corpusDir = "/srv/shop"

// cases returns the manifests of a folder of testdata; a first line "# env: NAME" names the environment to lay over one.
func cases(t *testing.T, dir string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no corpus in testdata/%s: %v", dir, err)
	}
	all := map[string]string{}
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".yaml")] = string(src)
	}
	return all
}

func parse(src string) (*manifest.Manifest, error) {
	env := ""
	if first, _, _ := strings.Cut(src, "\n"); strings.HasPrefix(first, "# env: ") {
		env = strings.TrimPrefix(first, "# env: ")
	}
	return manifest.Parse([]byte(src), filepath.Join(corpusDir, "hozo.yaml"), env)
}

func TestMistakesAreReportedAllTogetherWithPlaceAndFix(t *testing.T) {
	t.Parallel()
	for name, src := range cases(t, "bad") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := parse(src)
			if err == nil || m != nil {
				t.Fatalf("accepted: %+v", m)
			}
			for _, one := range fault.Flatten(err) {
				f, ok := fault.As(one)
				if !ok {
					t.Fatalf("%v is not a fault", one)
				}
				if !strings.HasPrefix(f.Code, "manifest/") || f.Kind != fault.Misuse || f.What == "" || f.Fix == "" || f.Where == "" || f.Source == "" {
					t.Errorf("incomplete fault: %+v", f)
				}
			}
			golden(t, filepath.Join("testdata", "bad", name+".golden"), []byte(fault.Render(err)))
		})
	}
}

func TestGoodManifestsGiveEveryValueAndDefault(t *testing.T) {
	t.Parallel()
	for name, src := range cases(t, "good") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := parse(src)
			if err != nil {
				t.Fatal(fault.Render(err))
			}
			got, err := json.MarshalIndent(m, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "good", name+".golden"), append(got, '\n'))
		})
	}
}

// update rewrites the golden files: go test ./internal/manifest -update
var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func TestOnlyLoopbackIsOpenUnlessTheFileSaysSo(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"8080": "tcp 127.0.0.1:8080", `":8080"`: "tcp 127.0.0.1:8080", `"8080"`: "tcp 127.0.0.1:8080",
		"localhost:8080": "tcp 127.0.0.1:8080", "0.0.0.0:8080": "tcp 0.0.0.0:8080", `"[::]:8080"`: "tcp [::]:8080",
		`"[::1]:8080"`: "tcp [::1]:8080", "unix:/run/x.sock": "unix /run/x.sock", "unix:x.sock": "unix /srv/shop/x.sock",
	} {
		m, err := parse("project: shop\nservices:\n  web: { run: ./web, listen: { http: " + written + " } }\n")
		if err != nil {
			t.Errorf("%s: %s", written, fault.Render(err))
			continue
		}
		if got := m.Services[0].Listen[0]; got.Network+" "+got.Address != want {
			t.Errorf("%s listens on %s %s, want %s", written, got.Network, got.Address, want)
		}
	}
}

func TestEnvironmentChangesOnlyWhatItNames(t *testing.T) {
	t.Parallel()
	src := cases(t, "good")["everything"]
	without, err := manifest.Parse([]byte(src), "/srv/shop/hozo.yaml", "")
	if err != nil {
		t.Fatal(fault.Render(err))
	}
	empty, err := manifest.Parse([]byte(src), "/srv/shop/hozo.yaml", "dev")
	if err != nil {
		t.Fatal(fault.Render(err))
	}
	empty.Env = ""
	if diff := cmp.Diff(without, empty); diff != "" {
		t.Errorf("an empty environment changes the manifest:\n%s", diff)
	}
}

func TestAFileWithoutDosLinesMeansTheSameWithThem(t *testing.T) {
	t.Parallel()
	src := "\uFEFF" + strings.ReplaceAll(cases(t, "good")["firehose"], "\n", "\r\n")
	got, err := parse(src)
	if err != nil {
		t.Fatal(fault.Render(err))
	}
	want, err := parse(cases(t, "good")["firehose"])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMistakesBeyondTheMostAreCounted(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("project: shop\nservices:\n  web:\n    run: ./web\n")
	for i := range 100 {
		fmt.Fprintf(&b, "    strange%d: x\n", i)
	}
	_, err := parse(b.String())
	all := fault.Flatten(err)
	if last := all[len(all)-1]; len(all) != 65 || fault.Code(last) != "manifest/more" || !strings.Contains(last.Error(), "36 more") {
		t.Errorf("%d faults, the last: %v", len(all), last)
	}
}

func TestLoadReadsAFileWithinItsBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "hozo.yaml")
	if err := os.WriteFile(path, []byte("project: shop\nservices:\n  out: { run: ./web, dir: sub }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Load(path, "")
	if err != nil {
		t.Fatal(fault.Render(err))
	}
	if m.Path != path || m.Dir != dir || m.Services[0].Dir != filepath.Join(dir, "sub") {
		t.Errorf("paths %q %q %q", m.Path, m.Dir, m.Services[0].Dir)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("# x\n"), 1<<19), 0o600); err != nil {
		t.Fatal(err)
	}
	for of, want := range map[string]string{
		path: "manifest/too-large", filepath.Join(dir, "none.yaml"): "manifest/unreadable", dir: "manifest/unreadable",
	} {
		if _, err := manifest.Load(of, ""); fault.Code(err) != want || fault.ExitCode(err) != 2 {
			t.Errorf("%s: %v, want %s", of, err, want)
		}
	}
	if _, err := manifest.Load(filepath.Join(dir, "none.yaml"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
}
