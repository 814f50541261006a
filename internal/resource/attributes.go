package resource

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// attributes are who owns a path, and what others may do with it.
type attributes struct {
	Owner string `json:"owner"`
	Group string `json:"group"`
	Mode  string `json:"mode"`
}

func (a attributes) valid() error {
	_, err := ParseMode(a.Mode)
	return err
}

// ParseMode reads permissions in octal: 640, 0640, 2750.
func ParseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o7777 || len(s) < 3 {
		return 0, fmt.Errorf("mode %q is no octal number like 0640", s)
	}
	mode := fs.FileMode(n & 0o777)
	for bit, special := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= special
		}
	}
	return mode, nil
}

func (a attributes) perm() fs.FileMode {
	mode, _ := ParseMode(a.Mode) // valid has been asked
	return mode
}

const permissions = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// differences says in what the attributes of a path differ from what is wanted.
func (a attributes) differences(info fs.FileInfo, uid, gid int, known bool) []string {
	var notes []string
	has := info.Sys().(*syscall.Stat_t)
	if !known || int(has.Uid) != uid || int(has.Gid) != gid {
		notes = append(notes, fmt.Sprintf("owner %s:%s -> %s:%s", userName(int(has.Uid)), groupName(int(has.Gid)), a.Owner, a.Group))
	}
	if mode := info.Mode() & permissions; mode != a.perm() {
		notes = append(notes, fmt.Sprintf("mode %s -> %s", octal(mode), octal(a.perm())))
	}
	return notes
}

func octal(mode fs.FileMode) string {
	n := uint32(mode.Perm())
	for bit, special := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&special != 0 {
			n |= bit
		}
	}
	return fmt.Sprintf("%04o", n)
}

// fix adds the step that brings the attributes of a path that exists to what is wanted.
func (a attributes) fix(c *Change, h *Host, id, path string, info fs.FileInfo, uid, gid int, known bool) {
	notes := a.differences(info, uid, gid, known)
	if len(notes) == 0 {
		return
	}
	c.Notes = append(c.Notes, notes...)
	c.do(Update, "", func(context.Context) error {
		uid, gid, _, err := h.owner(a.Owner, a.Group)
		if err != nil {
			return failed(id, err.Error(), "add it before", nil)
		}
		if err := os.Chown(path, uid, gid); err != nil {
			return failed(id, "its owner could not be changed", "see whether the file system is read-only", err)
		}
		if err := os.Chmod(path, a.perm()); err != nil {
			return failed(id, "its mode could not be changed", "see whether the file system is read-only", err)
		}
		return nil
	})
}
