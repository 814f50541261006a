package resource

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// packages are Debian packages, installed in one transaction. A name may have a version: nginx=1.22.1-9.
type packages struct {
	names []string
	id    string

	Absent bool `json:"absent"`
}

func packageKind() Kind {
	return Kind{
		Name: "package", Is: Words, Doc: "One or more packages of the system (apt), with a version as NAME=VERSION if it matters.",
		Keys: []Key{absent("They must not be installed; their configuration stays.")},
		make: func(s Spec) Resource { return &packages{names: strings.Fields(s.Name), id: s.ID()} },
	}
}

func (p *packages) valid() error {
	for _, name := range p.names {
		if strings.HasPrefix(name, "-") {
			return fmt.Errorf("%q is no name of a package", name)
		}
	}
	return nil
}

// Check implements Resource.
func (p *packages) Check(ctx context.Context, h *Host) (Change, error) {
	var c Change
	have, err := h.installed(ctx)
	if err != nil {
		return c, failed(p.id, "the installed packages cannot be listed", "hozo knows apt only, for now", err)
	}
	var missing []string
	op := Create
	for _, name := range p.names {
		bare, version, pinned := strings.Cut(name, "=")
		has, there := have[bare]
		switch {
		case p.Absent && there:
			missing = append(missing, bare)
			c.Notes = append(c.Notes, fmt.Sprintf("%s %s -> none", bare, has))
		case p.Absent:
		case !there:
			missing = append(missing, name)
			c.Notes = append(c.Notes, bare+" none -> "+wanted(version))
		case pinned && has != version:
			missing, op = append(missing, name), Update
			c.Notes = append(c.Notes, fmt.Sprintf("%s %s -> %s", bare, has, version))
		}
	}
	if len(missing) == 0 {
		return c, nil
	}
	if p.Absent {
		op = Remove
	} else {
		h.promise("a package")
	}
	c.do(op, "", func(ctx context.Context) error { return p.change(ctx, h, missing) })
	return c, nil
}

func wanted(version string) string {
	if version == "" {
		return "newest"
	}
	return version
}

// lockWait is how long apt waits for another apt, in seconds: unattended upgrades take minutes.
const lockWait = "300"

func (p *packages) change(ctx context.Context, h *Host, names []string) error {
	h.packages = nil // whatever happens, they may be others then
	apt := []string{"apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=" + lockWait, "-o", "Dpkg::Options::=--force-confold", "-o", "Dpkg::Options::=--force-confdef"}
	if p.Absent {
		return must(ctx, p.id, append(append(apt, "remove", "--"), names...)...)
	}
	// The lists may be older than the packages' files on the mirror. A mirror that does not answer is told of only if
	// the packages cannot be had without it.
	var update error
	if !h.updated {
		update = must(ctx, p.id, append(slices.Clone(apt), "update")...)
		h.updated = update == nil
	}
	install := must(ctx, p.id, append(append(apt, "install", "--no-install-recommends", "--allow-downgrades", "--"), names...)...)
	if install != nil {
		return errors.Join(install, update)
	}
	return nil
}

// installed lists every package of the host with its version, with one call a run.
func (h *Host) installed(ctx context.Context) (map[string]string, error) {
	if h.packages != nil {
		return h.packages, nil
	}
	cmd := exec.CommandContext(ctx, "/usr/bin/dpkg-query", "-W", "-f", "${db:Status-Status}\t${Package}\t${Version}\n")
	cmd.Env = environment()
	out, err := cmd.Output() // every package of the host: a few hundred KiB
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for l := range strings.Lines(string(out)) {
		if f := strings.Split(strings.TrimSuffix(l, "\n"), "\t"); len(f) == 3 && f[0] == "installed" {
			all[f[1]] = f[2]
		}
	}
	h.packages = all
	return all, nil
}
