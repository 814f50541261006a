package resource

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// swap puts a folder in place of another, which is then under the first one's name, in one step.
func swap(path, with string) error {
	err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, with, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(path, with)
	}
	return err
}

// syncAll brings to the disk what was written to the file system of a folder.
func syncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read
	return unix.Syncfs(int(d.Fd()))
}

func setHostname(name string) error { return unix.Sethostname([]byte(name)) }
