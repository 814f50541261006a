package resource

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// file is a regular file. Its content is sent only when the host has another; it is written beside the old file, synced
// and renamed over it, so nobody ever sees half of it. A path that is a symbolic link means the file that it leads to.
type file struct {
	path   string
	id     string
	secret bool

	Digest string `json:"digest"` // sha256 of the content, hex
	attributes
	Absent bool `json:"absent"`
}

func fileKind() Kind {
	return Kind{
		Name: "file", Is: Path, Doc: "A file.",
		Keys: append([]Key{
			{Name: "content", Type: Text, Doc: "What is in it."},
			{Name: "from", Type: Local, Doc: "File beside the manifest that it is a copy of; one that ends in .tmpl is a Go template."},
			{Name: "secret", Type: Bool, Doc: "Never show what is in it. Default false."},
			absent("It must not exist."),
		}, ownership("0644")...),
		OneOf: []string{"content", "from"},
		make: func(s Spec) Resource {
			return &file{path: s.Name, id: s.ID(), secret: s.Secret, attributes: attributes{Mode: "0644", Owner: "root", Group: "root"}}
		},
	}
}

func (f *file) valid() error { return f.attributes.valid() }

// Wants implements Blobs.
func (f *file) Wants(*Host) string {
	if f.Absent {
		return ""
	}
	path, err := followed(f.path)
	if err == nil && hashFile(path) == f.Digest {
		return ""
	}
	return f.Digest
}

// Check implements Resource.
func (f *file) Check(ctx context.Context, h *Host) (Change, error) {
	if f.Absent {
		return removal(f.id, f.path, false)
	}
	return f.put(ctx, h, f.id, f.path, f.Digest, h.Blob, f.secret)
}

// put compares a file with content of a digest, which is asked for only when it differs.
func (a attributes) put(_ context.Context, h *Host, id, name, digest string, content func(string) ([]byte, error), secret bool) (Change, error) {
	var c Change
	path, err := followed(name)
	if err != nil {
		return c, failed(id, "the path cannot be followed", "correct the path", err)
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return c, failed(id, "there is "+describe(info)+" in its place", "remove it, or choose another path", nil)
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return c, failed(id, "it cannot be looked at", "correct the path", err)
	case err != nil:
		info = nil
		if parent := filepath.Dir(path); !h.promised["path "+parent] && !h.installing() {
			if _, err := os.Stat(parent); err != nil {
				return c, failed(id, "its folder does not exist", "add directory: "+parent+" before it", err)
			}
		}
	}
	uid, gid, known, err := h.owner(a.Owner, a.Group)
	if err != nil {
		return c, failed(id, err.Error(), "add it before the file, or correct the name", nil)
	}
	if info == nil || hashFile(path) != digest {
		data, err := content(digest)
		if err != nil {
			return c, err
		}
		op, old := Create, []byte(nil)
		if info != nil {
			op = Update
			if old, err = readBounded(path, maxDiff); err != nil {
				return c, failed(id, "it cannot be read", "look at the host's disk", err)
			}
			c.Notes = a.differences(info, uid, gid, known)
		} else {
			c.Notes = []string{fmt.Sprintf("owner %s:%s, mode %s", a.Owner, a.Group, a.Mode)}
		}
		note := ""
		switch text, is := unified(name, old, data, info == nil); {
		case secret:
			note = "content (changed)"
		case is:
			c.Diff = text
		default:
			note = fmt.Sprintf("content of %d bytes, not shown", len(data))
		}
		c.do(op, note, func(context.Context) error {
			uid, gid, _, err := h.owner(a.Owner, a.Group)
			if err != nil {
				return failed(id, err.Error(), "add it before the file", nil)
			}
			if err := replace(path, data, a.perm(), uid, gid); err != nil {
				return failed(id, "it could not be written", "see whether the disk is full or read-only", err)
			}
			return nil
		})
		h.promise("path " + path)
		return c, nil
	}
	a.fix(&c, h, id, path, info, uid, gid, known)
	return c, nil
}

// followed returns where a path leads: the target of a link that exists, else the path itself.
func followed(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return path, nil
	}
	return real, err
}

// hashFile returns the digest of a file's content, or "" when it cannot be read.
func hashFile(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe in its place must not hold us up
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Digest names content: its SHA-256 in hex.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// inline gives content that is at hand under its digest.
func inline(data []byte) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return data, nil }
}

// replace writes data beside path and renames it over path. It is on disk when replace returns. The name beside it is
// always the same, so that what a crash left is used again.
func replace(path string, data []byte, mode fs.FileMode, uid, gid int) error {
	dir := filepath.Dir(path)
	beside := filepath.Join(dir, "."+filepath.Base(path)+".hozo-new")
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		_ = os.Remove(beside) // the first error is the one to tell
		return err
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err // EINVAL: a file system that cannot sync a folder
	}
	return nil
}

// removal is the change that takes a path away.
func removal(id, path string, tree bool) (Change, error) {
	var c Change
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return c, nil
	}
	if err != nil {
		return c, failed(id, "it cannot be looked at", "correct the path", err)
	}
	if info.IsDir() != tree {
		return c, failed(id, "there is "+describe(info)+" in its place, which is left alone", "use the resource of that kind to remove it", nil)
	}
	c.do(Remove, "", func(context.Context) error {
		remove := os.Remove
		if tree {
			remove = os.RemoveAll
		}
		if err := remove(path); err != nil {
			return failed(id, "it could not be removed", "see whether its file system is read-only", err)
		}
		return syncFolder(filepath.Dir(path))
	})
	return c, nil
}

func describe(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "a directory"
	case info.Mode()&fs.ModeSymlink != 0:
		return "a symbolic link"
	case info.Mode().IsRegular():
		return "a file"
	}
	return "a special file"
}
