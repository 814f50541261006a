package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/internal/testkit"
)

// binDir holds the hozo binary that the scripts run: the real one, because up starts it again as keeper and node.
var binDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hz")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "hozo"), "../../cmd/hozo").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build hozo: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestScripts(t *testing.T) {
	t.Parallel()
	work, err := os.MkdirTemp("", "hz") // a unix socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	testscript.Run(t, testscript.Params{
		Dir:         "testdata",
		WorkdirRoot: work,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", binDir+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Defer(func() { // a script that failed half way leaves nothing running
				cmd := exec.Command(filepath.Join(binDir, "hozo"), "down")
				cmd.Dir = env.WorkDir
				_ = cmd.Run() // a script without a manifest has nothing to stop
			})
			return nil
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"await": await},
		RequireExplicitExec: true,
	})
}

// await repeats a command until it succeeds with a standard output that matches: await PATTERN COMMAND...
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await PATTERN COMMAND...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(testkit.Patience); ; {
		if err = ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %s there is still no %q (error %v)", testkit.Patience, args[0], err)
		}
	}
}
