package logfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	zstSuffix  = ".zst"
	tempSuffix = ".tmp"
)

// File is one file of a log.
type File struct {
	Path string
	Slot int    // 0 is being written, 1 the youngest that was rotated
	Zst  bool   // compressed
	Seq  uint64 // grows from file to file; a guess by its neighbours when it has no index
	Info fs.FileInfo

	known bool // Seq is from the index
}

// List returns the files of the log at path, the oldest first. While the log is being rotated the picture may be torn;
// two equal Lists in a row are a true one.
func List(path string) ([]File, error) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	bySlot := map[int]File{}
	for _, e := range entries {
		slot, zst, ok := parseName(base, e.Name())
		if !ok {
			continue
		}
		f := File{Path: filepath.Join(dir, e.Name()), Slot: slot, Zst: zst}
		if f.Info, err = os.Stat(f.Path); err != nil || f.Info.IsDir() {
			continue // renamed just now
		}
		if other, both := bySlot[slot]; both && !other.Zst {
			continue // the compressed copy of a file that is still there
		}
		f.Seq, f.known = readSeq(indexPath(path, slot))
		bySlot[slot] = f
	}
	files := make([]File, 0, len(bySlot))
	for _, f := range bySlot {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b File) int { return b.Slot - a.Slot })
	number(files)
	return files, nil
}

// number guesses the sequence numbers that no index tells.
func number(files []File) {
	last := uint64(0)
	for i := range files {
		if !files[i].known {
			files[i].Seq = last + 1
			for j := i + 1; j < len(files); j++ {
				if distance := uint64(j - i); files[j].known && files[j].Seq > distance {
					files[i].Seq = max(files[i].Seq, files[j].Seq-distance)
					break
				}
			}
		}
		last = files[i].Seq
	}
}

// parseName says which file of the log base a name in its folder is.
func parseName(base, name string) (slot int, zst, ok bool) {
	if name == base {
		return 0, false, true
	}
	rest, ok := strings.CutPrefix(name, base+".")
	if !ok {
		return 0, false, false
	}
	rest, zst = strings.CutSuffix(rest, zstSuffix)
	slot, err := strconv.Atoi(rest)
	if err != nil || slot < 1 || strconv.Itoa(slot) != rest {
		return 0, false, false
	}
	return slot, zst, true
}

// same says whether two Lists show the same files.
func same(a, b []File) bool {
	return slices.EqualFunc(a, b, func(x, y File) bool {
		return x.Slot == y.Slot && x.Zst == y.Zst && x.Seq == y.Seq && os.SameFile(x.Info, y.Info)
	})
}
