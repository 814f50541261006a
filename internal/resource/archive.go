package resource

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// archive is a folder with what a tar file holds. A file in it says of which archive; while that is the same, nothing is
// sent or written. A changed archive is unpacked beside the folder and takes its place as a whole.
type archive struct {
	dir string
	id  string

	Digest string `json:"digest"`
	Owner  string `json:"owner"`
	Group  string `json:"group"`
	Strip  bool   `json:"strip"`
}

// archiveMark is the file in the folder that holds the archive's digest.
const archiveMark = ".hozo-archive"

func archiveKind() Kind {
	return Kind{
		Name: "archive", Is: Path, Doc: "A folder with what an archive holds, and nothing else.",
		Keys: []Key{
			{Name: "from", Type: Local, Doc: "The .tar, .tar.gz or .tar.zst beside the manifest.", Required: true},
			{Name: "strip", Type: Bool, Doc: "Leave out the first folder of each name in it. Default false."},
			{Name: "owner", Type: Text, Doc: "User that all of it belongs to. Default root."},
			{Name: "group", Type: Text, Doc: "Group that all of it belongs to. Default root."},
		},
		make: func(s Spec) Resource { return &archive{dir: s.Name, id: s.ID(), Owner: "root", Group: "root"} },
	}
}

func (a *archive) valid() error {
	if filepath.Dir(a.dir) == "/" {
		return fmt.Errorf("a folder directly under / is not replaced by an archive")
	}
	return nil
}

// has returns the digest of the archive that the folder was made of, or "".
func (a *archive) has() string {
	text, err := readBounded(filepath.Join(a.dir, archiveMark), 128)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// mark is what the folder's mark must hold: who owns it is part of it.
func (a *archive) mark() string {
	return fmt.Sprintf("%s strip=%t %s:%s", a.Digest, a.Strip, a.Owner, a.Group)
}

// Wants implements Blobs.
func (a *archive) Wants(*Host) string {
	if a.has() == a.mark() {
		return ""
	}
	return a.Digest
}

// Check implements Resource.
func (a *archive) Check(_ context.Context, h *Host) (Change, error) {
	var c Change
	if a.has() == a.mark() {
		return c, nil
	}
	if _, _, _, err := h.owner(a.Owner, a.Group); err != nil {
		return c, failed(a.id, err.Error(), "add it before the archive", nil)
	}
	op := Create
	if entries, err := os.ReadDir(a.dir); err == nil {
		if op = Update; a.has() == "" && len(entries) > 0 {
			return c, failed(a.id, "the folder holds something that is not of an archive", "choose another, or empty it", nil)
		}
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return c, failed(a.id, "it cannot be looked at", "correct the path", err)
	}
	data, err := h.Blob(a.Digest)
	if err != nil {
		return c, err
	}
	h.promise("path " + a.dir)
	c.do(op, fmt.Sprintf("archive %.12s of %d bytes", a.Digest, len(data)), func(context.Context) error {
		uid, gid, _, err := h.owner(a.Owner, a.Group)
		if err != nil {
			return failed(a.id, err.Error(), "add it before the archive", nil)
		}
		if err := a.replace(data, uid, gid); err != nil {
			return failed(a.id, "it could not be unpacked", "see whether the archive is whole and the disk is not full", err)
		}
		return nil
	})
	return c, nil
}

func (a *archive) replace(data []byte, uid, gid int) error {
	parent := filepath.Dir(a.dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	beside := filepath.Join(parent, "."+filepath.Base(a.dir)+".hozo-new")
	if err := os.RemoveAll(beside); err != nil { // of a run that was killed
		return err
	}
	err := a.unpack(data, beside, uid, gid)
	if err == nil {
		err = os.WriteFile(filepath.Join(beside, archiveMark), []byte(a.mark()+"\n"), 0o644)
	}
	if err == nil {
		err = syncAll(beside) // or the loss of power could leave the mark beside files without content
	}
	if err == nil {
		err = swap(beside, a.dir)
	}
	return errors.Join(err, os.RemoveAll(beside), syncFolder(parent))
}

// unpack writes every entry under dir; an [os.Root] keeps names and links from leading out of it.
func (a *archive) unpack(data []byte, dir string, uid, gid int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // a handle to the folder: nothing is written through it
	stream, err := opened(data)
	if err != nil {
		return err
	}
	for tr := tar.NewReader(stream); ; {
		head, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(head.Name)
		if a.Strip {
			_, name, _ = strings.Cut(name, "/")
		}
		if name == "" || name == "." {
			continue
		}
		if err := unpackEntry(root, name, head, tr); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := root.Lchown(name, uid, gid); err != nil {
			return err
		}
	}
}

func unpackEntry(root *os.Root, name string, head *tar.Header, from io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	mode := head.FileInfo().Mode().Perm() // nothing from an archive is setuid
	switch head.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return root.Chmod(name, mode)
	case tar.TypeSymlink:
		return root.Symlink(head.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, from)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
		return root.Chmod(name, mode)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("entries of type %q are not unpacked", head.Typeflag)
}

// opened looks at the first bytes to see how an archive is compressed.
func opened(data []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		return gzip.NewReader(bytes.NewReader(data))
	case bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return bytes.NewReader(data), nil
}
