package testkit

import (
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// built are the programs of this test binary.
var built programs

type programs struct {
	mu   sync.Mutex
	dir  string
	have map[string]bool
}

// Build builds the programs of these packages, each once for all tests, and returns the folder that they are in, each
// under the name of its package's folder. TestMain must call Main.
func Build(t testing.TB, packages ...string) string {
	t.Helper()
	built.mu.Lock() // a second test waits for what the first one builds
	defer built.mu.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("/tmp", "hz")
		if err != nil {
			t.Fatalf("make a folder for programs: %v", err)
		}
		built.dir, built.have = dir, map[string]bool{}
	}
	missing := slices.DeleteFunc(slices.Clone(packages), func(pkg string) bool { return built.have[pkg] })
	if len(missing) > 0 {
		if out, err := exec.Command("go", append([]string{"build", "-o", built.dir + "/"}, missing...)...).CombinedOutput(); err != nil {
			t.Fatalf("build %v: %v\n%s", missing, err, out)
		}
	}
	for _, pkg := range missing {
		built.have[pkg] = true
	}
	return built.dir
}

func (p *programs) remove() {
	if p.dir != "" {
		_ = os.RemoveAll(p.dir) // what is left of it is in /tmp
	}
}
