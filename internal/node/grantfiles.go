package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

// writeGrants stores the grants. The grant of a service with a user of its own belongs to that user, who may only read it; then the state folder can be passed through, and shows nothing more.
func writeGrants(st state, m *manifest.Manifest, grants []wire.Grant) error {
	owners, err := ownersOf(st, m)
	if err != nil {
		return err
	}
	folder := os.FileMode(0o700)
	if len(owners) > 0 {
		folder = 0o711
	}
	if err := os.MkdirAll(st.grants(), folder); err != nil {
		return fmt.Errorf("make folder of grants: %w", err)
	}
	for _, dir := range []string{string(st), st.grants()} {
		if err := os.Chmod(dir, folder); err != nil { // everything in them has a narrow mode of its own
			return fmt.Errorf("set mode of %s: %w", dir, err)
		}
	}
	for _, g := range grants {
		path := st.grant(g.User)
		if owner, ok := owners[g.Service]; ok {
			err = writeFor(path, g, owner.uid)
		} else {
			err = write(path, g)
		}
		if err != nil {
			return fmt.Errorf("write grant: %w", err)
		}
	}
	return nil
}

// leaving returns the grants of instances that are not among those wanted any more.
func leaving(st state, grants []wire.Grant) []wire.Grant {
	paths, err := filepath.Glob(filepath.Join(st.grants(), "*.json"))
	if err != nil {
		return nil // the pattern is good: the folder is not there yet
	}
	var old []wire.Grant
	for _, path := range paths {
		g, err := wire.ReadGrant(path)
		if err == nil && g.User != "" && !slices.ContainsFunc(grants, func(w wire.Grant) bool { return w.User == g.User }) {
			old = append(old, g) // what is no grant is no instance's
		}
	}
	return old
}

// dropGrants removes the grants of instances that are gone.
func dropGrants(st state, grants []wire.Grant) error {
	keep := map[string]bool{st.grant("node"): true}
	for _, g := range grants {
		keep[st.grant(g.User)] = true
	}
	old, err := filepath.Glob(filepath.Join(st.grants(), "*.json"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if !keep[path] {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove grant: %w", err)
			}
		}
	}
	return nil
}

// ownersOf maps the services that use the bus under a user other than this process's to that user. It returns a fault
// for a user who could not get at a grant.
func ownersOf(st state, m *manifest.Manifest) (map[string]account, error) {
	owners := map[string]account{}
	for _, s := range m.Services {
		if s.User == "" || !usesBus(s) {
			continue
		}
		owner, err := accountOf(s)
		if err != nil {
			return nil, err
		}
		if int(owner.uid) == os.Geteuid() {
			continue
		}
		if os.Geteuid() != 0 {
			return nil, &fault.Error{
				Code: "node/not-root", Kind: fault.Misuse, Where: "services." + s.Name + ".user",
				What: fmt.Sprintf("service %q is to run as user %q, which only root can arrange", s.Name, s.User), Fix: "run Hozo as root, or leave user out",
			}
		}
		if closed := closedTo(owner, filepath.Dir(string(st))); closed != "" {
			return nil, &fault.Error{
				Code: "node/state-closed", Kind: fault.Misuse, Where: closed,
				What: fmt.Sprintf("user %q of service %q cannot pass through this folder, so the service cannot read its grant", s.User, s.Name),
				Fix:  "chmod o+x " + closed + ", or name another folder with --state",
			}
		}
		owners[s.Name] = owner
	}
	return owners, nil
}

// closedTo returns the first folder on the way down to dir that a user may not pass through, or "".
func closedTo(who account, dir string) string {
	closed := ""
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || !passable(who, info) {
			closed = dir
		}
		if dir == filepath.Dir(dir) {
			return closed
		}
	}
}

// passable reports whether the mode of a folder lets a user through. Lists of further rights (ACLs) are not looked at.
func passable(who account, info fs.FileInfo) bool {
	of, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case !ok:
		return true
	case of.Uid == who.uid:
		return mode&0o100 != 0
	case of.Gid == who.gid || slices.Contains(who.groups, of.Gid):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// writeFor is like write for a file that only the user uid may read and nobody but us may change.
func writeFor(path string, v any, uid uint32) error {
	temp := path + ".for"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := write(temp, v); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(temp, 0o400), os.Chown(temp, int(uid), 0)); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
