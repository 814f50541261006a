package broker

import "golang.org/x/sys/unix"

// inMemory reports whether the file system of path is one that lives in memory, where a sync means nothing.
func inMemory(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	kind := uint32(st.Type) //nolint:gosec // magic numbers of file systems have 32 bits; the field's width varies
	return kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC
}
