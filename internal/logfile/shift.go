package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Shift rotates the log at path: PATH becomes PATH.1, what was PATH.1 becomes PATH.2 and so on up to the first number
// that is free; when none is, what would be beyond keep is dropped. With keep 0 PATH itself is removed. A crash at any
// moment leaves each file under one of its two names, and the next Shift goes on from there. Nothing else may rename
// files of the log meanwhile; readers may read.
func Shift(path string, keep int) error {
	if err := repair(path, keep); err != nil {
		return err
	}
	free := 1
	for free <= keep && occupied(path, free) {
		free++
	}
	if free > keep {
		if err := drop(path, keep); err != nil {
			return err
		}
		free = keep
	}
	for slot := free; slot > 0; slot-- {
		if err := move(path, slot-1, slot); err != nil {
			return err
		}
	}
	return Prune(path, keep)
}

// Prune removes rotated files beyond keep, which are there when keep was larger before.
func Prune(path string, keep int) error {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := strings.TrimSuffix(strings.TrimPrefix(e.Name(), base+"."), ".idx")
		slot, err := strconv.Atoi(strings.TrimSuffix(name, zstSuffix))
		if err == nil && slot > keep && strings.HasPrefix(e.Name(), base+".") {
			errs = append(errs, remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func occupied(path string, slot int) bool {
	return exists(slotPath(path, slot)) || exists(slotPath(path, slot)+zstSuffix)
}

// move renames the file of a slot, then its index.
func move(path string, from, to int) error {
	for _, suffix := range []string{"", zstSuffix, ".idx"} {
		if from == 0 && suffix == zstSuffix {
			continue
		}
		err := os.Rename(slotPath(path, from)+suffix, slotPath(path, to)+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// repair ends what a crash has left half done: indexes that stayed behind, and originals of compressed files.
func repair(path string, keep int) error {
	for slot := keep; slot >= 0; slot-- {
		raw := slotPath(path, slot)
		if slot > 0 && exists(raw+zstSuffix) {
			if err := remove(raw); err != nil { // the compressed file got its name when it was complete
				return err
			}
		}
		if !exists(raw+".idx") || exists(raw) || slot > 0 && exists(raw+zstSuffix) {
			continue
		}
		next := slotPath(path, slot+1)
		if occupied(path, slot+1) && !exists(next+".idx") {
			if err := os.Rename(raw+".idx", next+".idx"); err != nil {
				return err
			}
		} else if slot > 0 {
			if err := remove(raw + ".idx"); err != nil {
				return err
			}
		}
	}
	return nil
}

func drop(path string, slot int) error {
	raw := slotPath(path, slot)
	errs := []error{remove(raw), remove(raw + ".idx")}
	if slot > 0 {
		errs = append(errs, remove(raw+zstSuffix))
	}
	return errors.Join(errs...)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop old log: %w", err)
	}
	return nil
}
