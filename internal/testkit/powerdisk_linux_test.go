package testkit_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestPowerDiskForgetsWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	disk := testkit.NewPowerDisk(t)
	write := func(name, text string, sync bool) {
		t.Helper()
		file, err := os.OpenFile(filepath.Join(disk.Dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if !sync {
			return
		}
		if err := file.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	write("kept", "synced", true)
	folder, err := os.Open(disk.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.Sync(); err != nil {
		t.Fatal(err)
	}
	folder.Close()

	lostTail, lostFile, before := false, false, len("synced")
	for seed := range uint64(20) {
		write("kept", " or not", false)
		write("new", "text", true) // its folder is not synced
		disk.Cut(t, seed)
		data, err := os.ReadFile(filepath.Join(disk.Dir, "kept"))
		if err != nil || len(data) < len("synced") || string(data[:6]) != "synced" {
			t.Fatalf("cut %d took what was synced: %q, %v", seed, data, err)
		}
		lostTail, before = lostTail || len(data) == before, len(data)
		_, err = os.Stat(filepath.Join(disk.Dir, "new"))
		lostFile = lostFile || os.IsNotExist(err)
	}
	if !lostTail || !lostFile {
		t.Errorf("20 cuts took nothing that was not synced: a tail %v, a new file %v", lostTail, lostFile)
	}
}
