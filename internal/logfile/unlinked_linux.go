package logfile

import (
	"io/fs"
	"syscall"
)

// unlinked says whether a file has no name any more.
func unlinked(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}
