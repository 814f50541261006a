package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
)

// applied is what was applied last, kept in applied.json for the next node. A node that was killed comes back to this
// and not to what the file says by then: a manifest that is being edited, or a program that was built meanwhile, takes
// effect when somebody applies it.
type applied struct {
	File     string            `json:"file"`
	Env      string            `json:"env"`
	Source   string            `json:"source"` // the manifest as it was
	Binaries map[string]binary `json:"binaries"`
}

// mostSource is a little more than a manifest may have, so that one too large is told by the manifest's own rule.
const mostSource = 2 << 20

// source reads the manifest at path; what it returns besides is the manifest in full, or all that is wrong with it.
func source(path, env string) (string, *manifest.Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		_, err = manifest.Load(path, env) // it says what is wrong in its own words
		return "", nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, mostSource))
	if err != nil {
		return "", nil, fmt.Errorf("read %s: %w", path, err)
	}
	m, err := manifest.Parse(src, path, env)
	return string(src), m, err
}

// remember writes down what has been applied.
func (n *Node) remember(a applied, p *prepared) error {
	programs := map[string]bool{}
	for _, s := range p.specs {
		programs[s.Argv[0]] = true
	}
	a.Binaries = n.binaries.save(programs)
	return write(n.state.applied(), a)
}

// recall returns what was applied last, when something of it may still run.
func (n *Node) recall(ctx context.Context) (applied, bool) {
	var a applied
	processes, _, err := n.keeper.List(ctx)
	if err != nil {
		return a, false
	}
	running := 0
	for _, p := range processes {
		if p.Exit == nil && len(p.Labels) > 0 {
			running++
		}
	}
	if running == 0 {
		return a, false
	}
	err = read(n.state.applied(), &a)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.cfg.Logger.WarnContext(ctx, "what was applied last is not known, the manifest is read instead", "error", err)
	}
	return a, err == nil && a.File != ""
}

// firstApply brings the host to what was applied last, or, on a host where nothing runs, to the manifest of the command
// line. Only a manifest that cannot be read is fatal; what fails for one service is shown in its status.
func (n *Node) firstApply(ctx context.Context) error {
	if err := errors.Join(n.scaling.load(), n.pauses.load()); err != nil {
		n.cfg.Logger.WarnContext(ctx, "how services were scaled or queues paused is not known", "error", err)
	}
	var err error
	if last, ok := n.recall(ctx); ok {
		n.binaries.load(last.Binaries)
		var m *manifest.Manifest
		if m, err = manifest.Parse([]byte(last.Source), last.File, last.Env); err == nil {
			_, err = n.bring(ctx, last, m, false)
		}
	}
	if n.current() == nil {
		_, err = n.apply(ctx, n.cfg.File, n.cfg.Env)
	}
	if err != nil && n.current() == nil {
		return err
	}
	if err != nil {
		n.cfg.Logger.ErrorContext(ctx, "not everything was applied", "error", err)
	}
	return nil
}

// errNoManifest is answered to a plan or a scaling before the first apply.
var errNoManifest = &fault.Error{Code: "node/no-manifest", What: "nothing has been applied yet", Fix: "wait until the project has started, or `hozo apply`"}
