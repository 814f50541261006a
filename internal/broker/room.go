package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mostReserve bounds the part of the file system that the store leaves free for logs, databases and grants.
const mostReserve = 256 << 20

// Space is what a file system has left for the user who asks.
type Space struct {
	TotalBytes int64
	FreeBytes  int64
}

// SpaceOf measures the file system of a folder or file.
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	block := int64(st.Bsize) //nolint:unconvert // 32 bits on macOS
	return Space{TotalBytes: int64(st.Blocks) * block, FreeBytes: int64(st.Bavail) * block}, nil
}

// Reserve is what should stay free: a twentieth of the file system, at most 256 MiB. Below it the broker takes no new
// messages.
func (s Space) Reserve() int64 { return min(mostReserve, s.TotalBytes/20) }

// Low reports whether less than the reserve is free.
func (s Space) Low() bool { return s.FreeBytes < s.Reserve() }

// ample reports whether so much more than the reserve is free that a store closed for want of space can take messages
// again. Between the two it stays as it is, so that it does not flutter.
func (s Space) ample() bool { return s.FreeBytes >= s.Reserve()+s.Reserve()/4 }

// enough reports whether a server can be started: recovery and the positions of readers need a few MiB, and the rest of
// the reserve is left to those who write elsewhere.
func (s Space) enough() bool { return s.FreeBytes >= s.Reserve()/4 }

// outOfSpace reports whether a line of the server's log tells of a full disk or a full quota.
func outOfSpace(line string) bool {
	return strings.Contains(line, unix.ENOSPC.Error()) || strings.Contains(line, unix.EDQUOT.Error())
}

// limit is the most that a store may take when asked bytes are wanted, 0 meaning three quarters of what there is. used
// is what it holds already, which counts as room: a restart with a full store must not shrink it.
func (s Space) limit(asked, used int64) int64 {
	available := s.FreeBytes + used
	most := max(available-s.Reserve(), 1)
	if asked == 0 {
		asked = available / 4 * 3
	}
	return min(asked, most)
}

// usedBytes sums the files below dir. One that goes away meanwhile counts nothing.
func usedBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
