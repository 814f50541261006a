package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hozo-dev/hozo/fault"
)

// Load reads the manifest at path and lays the environment called env over it; "" lays none. Its errors are those of
// Parse, or a fault that says why the file cannot be read.
func Load(path, env string) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = f.Close() }() // only read: closing cannot lose anything
	src, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return Parse(src, path, env)
}

func unreadable(path string, err error) error {
	fix := "check its permissions"
	if errors.Is(err, fs.ErrNotExist) {
		fix = "write it, or name another with --file"
	}
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &fault.Error{Code: "manifest/unreadable", Kind: fault.Misuse, What: "the manifest cannot be read", Where: path, Fix: fix, Err: err}
}

// Parse reads a manifest from src, of at most 1 MiB, and lays the environment called env over it; "" lays none. path is
// where src stands: errors name it, and relative paths in src start in its folder; a relative path itself starts in the
// working directory. Nothing else is read.
//
// The error joins one *fault.Error of Kind Misuse for each mistake, in the order of the file, or the first 64 of them.
// Only a file that is not YAML has a single one.
func Parse(src []byte, path, env string) (*Manifest, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find folder of %s: %w", path, err)
	}
	if len(src) > maxSource {
		return nil, &fault.Error{Code: "manifest/too-large", Kind: fault.Misuse, What: fmt.Sprintf("the manifest is larger than %s", Bytes(maxSource)), Where: path, Fix: "keep data in files of their own"}
	}
	text := strings.TrimPrefix(string(src), "\uFEFF")
	r := newReport(text, path)
	root := parseYAML(text, r)
	if root == nil {
		return nil, r.err()
	}
	d := &decoder{report: r, dir: filepath.Dir(full)}
	m := d.manifest(root)
	if env != "" {
		if root = d.withEnv(root, env); root != nil {
			m = d.manifest(root)
		}
	}
	if root != nil && root.kind == kindMap {
		m.Path, m.Dir, m.Env, m.Places = full, d.dir, env, Places{root}
		m.fill(root)
		(&checker{report: r, root: root, m: m}).all()
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// manifest decodes a whole file, environments included.
func (d *decoder) manifest(root *node) *Manifest {
	b := base{Manifest: newManifest()}
	manifestShape().read(d, root, "", &b)
	d.overlaysFit(root)
	return &b.Manifest
}

// overlaysFit reports streams and services of an environment that the base does not have: an environment changes what is
// there, so that a misspelt name cannot make something new.
func (d *decoder) overlaysFit(root *node) {
	envs := root.get("envs")
	if envs == nil {
		return
	}
	for _, env := range envs.entries {
		for _, of := range []struct{ section, noun string }{{"streams", "stream"}, {"services", "service"}} {
			section := env.value.get(of.section)
			if section == nil {
				continue
			}
			known := root.get(of.section).names()
			for _, e := range section.entries {
				if root.get(of.section).entry(e.name) == nil {
					d.add(e.at, "unknown-"+of.noun, fmt.Sprintf("environment %s changes %s %q, which is not declared", short(env.name), of.noun, short(e.name)),
						orKnown(e.name, known, "it"))
				}
			}
		}
	}
}

// names lists the keys of a map.
func (n *node) names() []string {
	if n == nil {
		return nil
	}
	all := make([]string, 0, len(n.entries))
	for _, e := range n.entries {
		all = append(all, e.name)
	}
	return all
}

// withEnv lays an environment over the file, or reports that there is none of that name.
func (d *decoder) withEnv(root *node, env string) *node {
	envs := root.get("envs")
	over := envs.entry(env)
	if over == nil {
		at := position{1, 1}
		if e := root.entry("envs"); e != nil {
			at = e.at
		}
		d.add(at, "unknown-env", fmt.Sprintf("there is no environment %q", short(env)), orKnown(env, envs.names(), "it under envs"))
		return root
	}
	without := *root
	without.entries = nil
	for _, e := range root.entries {
		if e.name != "envs" {
			without.entries = append(without.entries, e)
		}
	}
	if over.value.kind != kindMap {
		return &without // null, or reported
	}
	return merge(&without, over.value, nil)
}
