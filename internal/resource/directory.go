package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// directory is a folder. Folders that lead to it are made as well, with the system's default owner and mode 0755.
type directory struct {
	path string
	id   string
	attributes
	Absent bool `json:"absent"`
}

func directoryKind() Kind {
	return Kind{
		Name: "directory", Is: Path, Doc: "A folder.",
		Keys: append([]Key{absent("It must not exist: it is removed with everything in it.")}, ownership("0755")...),
		make: func(s Spec) Resource {
			return &directory{path: s.Name, id: s.ID(), attributes: attributes{Mode: "0755", Owner: "root", Group: "root"}}
		},
	}
}

func (d *directory) valid() error {
	if d.Absent && len(d.path) > 0 && filepath.Dir(d.path) == "/" {
		return fmt.Errorf("a folder directly under / is not removed by a deploy")
	}
	return d.attributes.valid()
}

// Check implements Resource.
func (d *directory) Check(_ context.Context, h *Host) (Change, error) {
	if d.Absent {
		return removal(d.id, d.path, true)
	}
	var c Change
	uid, gid, known, err := h.owner(d.Owner, d.Group)
	if err != nil {
		return c, failed(d.id, err.Error(), "add it before the directory, or correct the name", nil)
	}
	info, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for path := d.path; path != "/"; path = filepath.Dir(path) {
			h.promise("path " + path)
		}
		c.do(Create, fmt.Sprintf("owner %s:%s, mode %s", d.Owner, d.Group, d.Mode), func(context.Context) error {
			uid, gid, _, err := h.owner(d.Owner, d.Group)
			if err != nil {
				return failed(d.id, err.Error(), "add it before the directory", nil)
			}
			if err := d.create(uid, gid); err != nil {
				return failed(d.id, "it could not be made", "see whether the file system is full or read-only", err)
			}
			return nil
		})
	case err != nil && !errors.Is(err, syscall.ENOTDIR):
		return c, failed(d.id, "it cannot be looked at", "correct the path", err)
	case err != nil || !info.IsDir():
		return c, failed(d.id, "there is something else in its place", "remove it, or choose another path", err)
	default:
		d.fix(&c, h, d.id, d.path, info, uid, gid, known)
	}
	return c, nil
}

func (d *directory) create(uid, gid int) error {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(d.path, 0o700); err != nil {
		return err
	}
	if err := os.Chown(d.path, uid, gid); err != nil {
		return err
	}
	if err := os.Chmod(d.path, d.perm()); err != nil { // the umask has no say
		return err
	}
	return syncFolder(filepath.Dir(d.path))
}
