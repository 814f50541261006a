package keeper

import (
	"cmp"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// NodeName is the name of the process that the keeper respawns itself, when Config.Node is set.
const NodeName = "node"

// DefaultGrace is how long a stopping keeper waits after TERM. It is the stop timeout that Supervisor and Docker use.
const DefaultGrace = 10 * time.Second

// maxSocketPath is sun_path of Linux (108 bytes) without its final zero.
const maxSocketPath = 107

// Config says what a Keeper keeps.
type Config struct {
	// State is the absolute path of the state directory. It is made (0700) when missing.
	State string
	// Node is the argv of the node, argv[0] absolute. The keeper starts it, and again whenever it ends. Empty: none.
	Node []string
	// NodeEnv is the whole environment of the node, as KEY=value.
	NodeEnv []string
	// Version is what hello answers.
	Version string
	// Alone leaves the standby out: then kill -9 of the keeper ends every service. Otherwise Run starts this program
	// again with the same arguments, and expects it to call Run there as well.
	Alone bool
	// Trees is how trees are held together: TreesCgroup, TreesFreezer or TreesProcess. Empty: the first of them that can
	// be used here.
	Trees string
	// Grace is how long a stopping keeper waits after TERM: once for the node, which stops the services in their
	// order, then once for whatever is left. Zero means DefaultGrace (10s).
	Grace time.Duration
	// Logger takes state changes; nil discards them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if !filepath.IsAbs(c.State) {
		return misuse("bad-state", fmt.Sprintf("state directory %q is not an absolute path", c.State), "--state DIR")
	}
	if path := SocketPath(c.State); len(path) > maxSocketPath {
		return &fault.Error{
			Code:  "keeper/path-too-long",
			Kind:  fault.Misuse,
			What:  fmt.Sprintf("socket path is %d bytes long; a unix socket allows %d", len(path), maxSocketPath),
			Where: path,
			Fix:   "--state DIR",
		}
	}
	switch c.Trees {
	case "", TreesCgroup, TreesFreezer, TreesProcess:
	default:
		return misuse("bad-request", fmt.Sprintf("there are no trees of kind %q", c.Trees), "")
	}
	if len(c.Node) > 0 && !filepath.IsAbs(c.Node[0]) {
		return misuse("bad-request", fmt.Sprintf("program of the node %q is not an absolute path", c.Node[0]), "")
	}
	return nil
}

// The values of Config.Trees: what holds the processes of a tree together.
const (
	TreesCgroup  = "cgroup"  // a cgroup of version 2: ended at once by cgroup.kill
	TreesFreezer = "freezer" // a cgroup of the version 1 freezer: stopped, then killed
	TreesProcess = "process" // descent, session and environment of each process, as /proc shows them
)

// SocketPath is where the keeper of a state directory listens.
func SocketPath(state string) string { return filepath.Join(state, "keeper.sock") }

func misuse(slug, what, fix string) *fault.Error {
	return &fault.Error{Code: "keeper/" + slug, Kind: fault.Misuse, What: what, Fix: fix}
}

func failure(slug, what, fix string, cause error) *fault.Error {
	return &fault.Error{Code: "keeper/" + slug, What: what, Fix: fix, Err: cause}
}
