package broker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// racy is how young a folder's time may be for it to say nothing: file systems stamp by a clock that ticks every few
// milliseconds, so that two changes within one tick look like one.
const racy = 50 * time.Millisecond

// streamFiles makes the files of one stream durable. It remembers what it has synced, so that a sync of a stream with a
// thousand blocks touches the one that has grown. It is for one goroutine.
type streamFiles struct {
	dir     string                 // of the stream
	parents []string               // folders above it, to the state's: their entries lead here
	msgs    *os.File               // folder of the blocks; held open so that no other can get its inode
	info    fs.FileInfo            // of msgs
	marks   map[string]fs.FileInfo // what was synced, by path
	clean   bool                   // the folder has not changed since it was listed, if its time says so
	newest  int                    // index of the last block
}

func newStreamFiles(root, name string) *streamFiles {
	f := &streamFiles{dir: filepath.Join(root, name), marks: map[string]fs.FileInfo{}}
	for dir := root; len(f.parents) < 6; dir = filepath.Dir(dir) { // streams, $G, jetstream, store, broker, and the state's
		f.parents = append(f.parents, dir)
	}
	return f
}

func (f *streamFiles) msgsDir() string { return filepath.Join(f.dir, "msgs") }
func (f *streamFiles) block(index int) string {
	return filepath.Join(f.msgsDir(), strconv.Itoa(index)+".blk")
}

func (f *streamFiles) close() {
	if f.msgs != nil {
		_ = f.msgs.Close()
		f.msgs = nil
	}
}

// same reports whether the blocks are still in the folder that was synced: a stream that was purged or made anew has
// another one.
func (f *streamFiles) same() bool {
	if f.msgs == nil {
		return false
	}
	now, err := os.Stat(f.msgsDir())
	return err == nil && os.SameFile(now, f.info)
}

// sync makes everything durable that was written to the blocks before the call, and that they are there.
func (f *streamFiles) sync() error {
	if !f.same() {
		if err := f.reopen(); err != nil {
			return err
		}
	}
	if f.clean && f.unchanged() {
		return f.syncFile(f.block(f.newest))
	}
	return f.list()
}

// unchanged reports whether no block has come, gone or been replaced since the folder was listed.
func (f *streamFiles) unchanged() bool {
	now, err := f.msgs.Stat()
	if err != nil || !now.ModTime().Equal(f.info.ModTime()) {
		return false
	}
	_, err = os.Lstat(f.block(f.newest + 1)) // made within the tick of the folder's time
	return errors.Is(err, fs.ErrNotExist)
}

// reopen begins anew with the folder as it is now: what leads to it is made durable too.
func (f *streamFiles) reopen() error {
	f.close()
	msgs, err := os.Open(f.msgsDir())
	if err != nil {
		return err
	}
	f.msgs, f.clean = msgs, false
	clear(f.marks)
	if f.info, err = msgs.Stat(); err != nil {
		return err
	}
	return f.syncTree()
}

// list syncs the blocks that have changed and the folder.
func (f *streamFiles) list() error {
	info, err := f.msgs.Stat()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(f.msgsDir())
	if err != nil {
		return err
	}
	newest := 0
	for _, e := range entries {
		if index, isBlock := blockIndex(e.Name()); isBlock {
			newest = max(newest, index)
		}
	}
	for _, e := range entries {
		index, isBlock := blockIndex(e.Name())
		if !isBlock {
			continue
		}
		if err := f.syncChanged(filepath.Join(f.msgsDir(), e.Name()), index == newest); err != nil {
			return err
		}
	}
	if err := f.msgs.Sync(); err != nil {
		return err
	}
	f.info, f.newest = info, newest
	f.clean = newest > 0 && time.Since(info.ModTime()) > racy
	return nil
}

// syncTree syncs every file of the stream that has changed since it was synced last, those of its readers included, and
// the folders that they are in.
func (f *streamFiles) syncTree() error {
	var folders []string
	err := filepath.WalkDir(f.dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // replaced meanwhile
		case err != nil:
			return err
		case entry.IsDir():
			folders = append(folders, path)
			return nil
		case !entry.Type().IsRegular() || strings.HasSuffix(path, ".tmp"):
			return nil
		}
		return f.syncChanged(path, false)
	})
	if err != nil {
		return err
	}
	if _, known := f.marks[f.dir]; !known {
		folders = append(folders, f.parents...)
	}
	for _, folder := range folders {
		if err := f.syncChanged(folder, false); err != nil {
			return err
		}
	}
	return nil
}

// syncChanged syncs a file or folder when it is not as it was at its last sync, or always.
func (f *streamFiles) syncChanged(path string, always bool) error {
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		delete(f.marks, path)
		return nil
	}
	if err != nil {
		return err
	}
	if was, known := f.marks[path]; known && !always && os.SameFile(was, now) &&
		was.Size() == now.Size() && was.ModTime().Equal(now.ModTime()) && (!now.IsDir() || time.Since(now.ModTime()) > racy) {
		return nil
	}
	if err := f.syncFile(path); err != nil {
		return err
	}
	f.marks[path] = now // as it was before the sync: what came after it is synced next time
	return nil
}

// syncFile syncs what is at path. A file that is gone needs no sync: its folder does.
func (f *streamFiles) syncFile(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		f.clean = false
		return nil
	}
	if err != nil {
		return err
	}
	err = file.Sync()
	return errors.Join(err, file.Close())
}

// blockIndex reads the name of a block: "12.blk".
func blockIndex(name string) (int, bool) {
	digits, isBlock := strings.CutSuffix(name, ".blk")
	index, err := strconv.Atoi(digits)
	return index, isBlock && err == nil && index > 0
}
