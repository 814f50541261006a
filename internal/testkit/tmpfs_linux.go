package testkit

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Tmpfs mounts a file system of sizeBytes in a new folder and unmounts it at the end of t. It needs root.
func Tmpfs(t testing.TB, sizeBytes int64) string {
	t.Helper()
	dir := TempDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0700", sizeBytes)); err != nil {
		t.Fatalf("mount a tmpfs of %d bytes (needs root): %v", sizeBytes, err)
	}
	t.Cleanup(func() {
		// Detached, so that a file that is still open delays nothing.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
