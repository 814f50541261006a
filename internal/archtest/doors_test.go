// Package archtest holds the doors of the house as a test: which room may import which, and why.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hozo-dev/hozo"

// doors lists, for every room, the rooms of this project that its production code may import. An import that is not
// listed is a new arrow in the picture of docs/ARCHITECTURE.md: draw it there first.
var doors = map[string][]string{
	"wire":               {},
	"fault":              {},
	"internal/lifecycle": {},
	"internal/sdnotify":  {},
	"internal/status":    {},
	"internal/ghevents":  {},
	"internal/jsonscan":  {},
	"internal/schedule":  {},
	"internal/zmtp":      {},
	"internal/testtime":  {},
	"internal/envfile":   {"fault"},
	"internal/cron":      {"internal/schedule", "wire"},
	"internal/dispatch":  {"wire"},

	"bus":           {"wire", "fault", "internal/lifecycle"},
	"bus/protobuf":  {"bus"},
	"task":          {"bus", "wire", "fault", "internal/lifecycle", "internal/testtime"},
	"web":           {"wire", "fault", "internal/lifecycle"},
	"sink":          {"bus", "wire", "fault", "internal/lifecycle"},
	"sink/table":    {"fault"},
	"sink/postgres": {"sink", "sink/table", "bus", "internal/jsonscan", "wire", "fault"},
	"sink/sqlite":   {"sink", "sink/table", "bus", "internal/jsonscan", "wire", "fault"},
	"sink/file":     {"sink", "bus", "wire", "fault"},
	".":             {"bus", "task", "web", "wire", "fault", "internal/lifecycle", "internal/sdnotify"},

	"internal/manifest":   {"internal/schedule", "internal/resource", "wire", "fault"},
	"internal/plan":       {},
	"internal/autoscale":  {},
	"internal/logfile":    {},
	"internal/reap":       {},
	"internal/keeper":     {"internal/logfile", "internal/reap", "fault", "wire", "internal/lifecycle"},
	"internal/supervisor": {"internal/schedule", "internal/plan", "internal/keeper", "internal/status", "internal/lifecycle", "wire", "fault"},
	"internal/broker":     {"internal/lifecycle", "wire", "fault"},
	"internal/builtin":    {".", "bus", "task", "sink", "sink/sqlite", "sink/postgres", "sink/file", "web", "internal/manifest", "internal/jsonscan", "internal/zmtp", "internal/lifecycle", "wire", "fault"},
	"internal/node": {
		"internal/manifest", "internal/plan", "internal/autoscale", "internal/supervisor", "internal/keeper", "internal/broker",
		"internal/status", "internal/lifecycle", "internal/sdnotify", "internal/envfile", "internal/schedule", "internal/cron", "internal/dispatch", "bus", "task", "wire", "fault",
	},
	// supervisord is a process manager of its own, for a host that had Supervisor: it spawns its children itself, where
	// everything else asks the keeper to. The two share only how children are reaped.
	"internal/supervisord":        {"internal/supervisord/conf", "internal/supervisord/xmlrpc", "internal/reap", "fault"},
	"internal/supervisord/xmlrpc": {},
	"internal/supervisord/conf":   {"fault"},
	// A manifest is written as text, comments and all: the translation knows its words, not its types.
	"internal/supervisord/translate": {"internal/supervisord/conf"},
	"internal/supervisord/parity":    {}, // tests alone

	// The agent is the far end of a deploy: it knows resources and the protocol, never ssh or the manifest.
	"internal/resource":        {"fault"},
	"internal/deploy":          {"internal/manifest", "internal/deploy/protocol", "internal/resource", "fault"},
	"internal/deploy/protocol": {"internal/resource", "fault"},
	"internal/deploy/agent":    {"internal/deploy/protocol", "internal/resource", "fault"},
	// The platform inside a test composes as the node does; a service's program does not import it.
	"hozotest": {".", "bus", "task", "internal/manifest", "internal/broker", "internal/node", "internal/testtime", "wire"},

	"internal/feed": {"wire", "fault"},
	"internal/cli": {
		"internal/node", "internal/keeper", "internal/logfile", "internal/broker", "internal/builtin", "internal/manifest", "internal/plan",
		"internal/status", "internal/feed", "internal/lifecycle", "internal/sdnotify", "wire", "fault",
		"internal/deploy", "internal/deploy/protocol", "internal/deploy/agent", "internal/resource",
		"internal/supervisord", "internal/supervisord/conf", "internal/supervisord/translate",
	},
	"cmd/hozo": {"internal/cli"},
}

// free rooms may import anything of ours: they are leaves that nobody imports.
var free = regexp.MustCompile(`^(examples|bench)(/|$)|^internal/(testkit|archtest|lab)$|/sinktest$`)

// sole names modules that only some rooms may import, and why.
var sole = map[string]struct {
	rooms []string
	why   string
}{
	"github.com/nats-io/nats-server/v2":        {[]string{"internal/broker"}, "the engine is one room's affair; everybody else is a client"},
	"github.com/nats-io/nats.go":               {[]string{"bus", "task", "sink", "sink/file", "sink/sqlite", "internal/broker", "internal/node", "internal/cron", "internal/dispatch", "internal/builtin", "internal/testkit", "hozotest"}, "services speak the bus's words, not the engine's"},
	"github.com/goccy/go-yaml":                 {[]string{"internal/manifest"}, "only the manifest is YAML"},
	"modernc.org/sqlite":                       {[]string{"sink/sqlite", "examples", "bench"}, "a driver links only where it is used"},
	"github.com/jackc/pgx/v5":                  {[]string{"sink/postgres", "examples", "bench"}, "a driver links only where it is used"},
	"github.com/spf13/cobra":                   {[]string{"internal/cli"}, "flags are read in one room"},
	"charm.land/bubbletea/v2":                  {[]string{"internal/cli"}, "one command draws on a screen"},
	"github.com/charmbracelet/x/ansi":          {[]string{"internal/cli"}, "only a command line cuts text to the width of a terminal"},
	"github.com/charmbracelet/x/vt":            {[]string{}, "a test tool"},
	"github.com/creack/pty":                    {[]string{}, "a test tool"},
	"github.com/expr-lang/expr":                {[]string{"internal/builtin", "internal/manifest", "internal/node"}, "conditions are checked by the manifest and run by route and by tap"},
	"google.golang.org/protobuf":               {[]string{"bus/protobuf"}, "services without protocol buffers link none"},
	"google.golang.org/grpc":                   {[]string{}, "one health call is not worth it; a test tool"},
	"github.com/hanwen/go-fuse/v2":             {[]string{"internal/testkit"}, "a disk whose power can be cut is a test tool"},
	"github.com/rogpeppe/go-internal":          {[]string{"internal/resource"}, "plans show differences; else a test tool"},
	"github.com/skeema/knownhosts":             {[]string{"internal/deploy"}, "one room speaks ssh"},
	"golang.org/x/crypto/ssh":                  {[]string{"internal/deploy", "internal/lab"}, "one room speaks ssh; the lab makes keys for it"},
	"go.uber.org/goleak":                       {[]string{"internal/testkit"}, "a test tool"},
	"pgregory.net/rapid":                       {[]string{}, "a test tool"},
	"github.com/santhosh-tekuri/jsonschema/v6": {[]string{}, "the schema is checked by tests; the manifest is checked by its own rules, which know positions"},
}

// never lists what must not be among the transitive dependencies of package hozo: every service links them all.
var never = map[string]string{
	"github.com/nats-io/nats-server/v2": "a service is a client; it must not carry the broker",
	"modernc.org/sqlite":                "a service without a database must not carry one",
	"github.com/jackc/pgx/v5":           "likewise: EnqueueTx takes the caller's driver",
	"testing":                           "test code must not reach a service's binary",
	"google.golang.org/protobuf":        "a service that speaks no protocol buffers must not carry them",
	"github.com/spf13/cobra":            "a service has no command line of ours",
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

// room is the folder of a package of ours, "." for the root, or "" for anything else.
func room(path string) string {
	if path == module {
		return "."
	}
	rest, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	return rest
}

func TestImportsGoThroughTheDoors(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range list(t, "./...") {
		from := room(p.ImportPath)
		seen[from] = true
		if !free.MatchString(from) {
			allowed, known := doors[from]
			if !known {
				t.Errorf("room %s is not on the list of doors: say what it may import", from)
			}
			for _, path := range p.Imports {
				if to := room(path); to != "" && !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s, which is no door of it: imports go down, see docs/ARCHITECTURE.md", from, to)
				}
			}
		}
		for _, path := range p.Imports {
			for mod, rule := range sole {
				if path != mod && !strings.HasPrefix(path, mod+"/") {
					continue
				}
				if !slices.ContainsFunc(rule.rooms, func(r string) bool { return from == r || strings.HasPrefix(from, r+"/") }) {
					t.Errorf("%s imports %s: %s", from, path, rule.why)
				}
			}
		}
	}
	for name := range doors {
		if !seen[name] {
			t.Errorf("the list of doors names %s, which does not exist", name)
		}
	}
}

func TestServiceBinaryStaysLight(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, module) {
		for _, dep := range p.Deps {
			for mod, why := range never {
				if dep == mod || strings.HasPrefix(dep, mod+"/") {
					t.Errorf("package hozo links %s: %s", dep, why)
				}
			}
		}
	}
}

func TestPathsInTheMapExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1)
	if len(paths) < 10 {
		t.Fatalf("found %d rooms in the map; its table has changed its form", len(paths))
	}
	files := regexp.MustCompile("`([a-z_/0-9]+\\.go)`").FindAllStringSubmatch(string(page), -1)
	if len(files) == 0 {
		t.Fatal("found no file in the map; the page has changed its form")
	}
	for _, m := range append(paths, files...) {
		if _, err := os.Stat(filepath.Join("..", "..", m[1])); err != nil {
			t.Errorf("docs/ARCHITECTURE.md names %s: %v", m[1], err)
		}
	}
}
