package testkit

import (
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"
)

// powerDisk is a file system in memory that knows what a power cut would leave of it. What was written to a file since
// its last fsync, and what happened in a folder since the folder's, is kept or lost as the file system pleases.
type powerDisk struct {
	mu     sync.Mutex
	root   *diskFile
	nextID uint64
	rate   int64 // bytes a second that writes may take; 0 is no limit
}

// diskFile is a file or a folder.
type diskFile struct {
	id    uint64
	mode  uint32
	mtime time.Time

	// Of a file: its bytes, those on disk, and what happened since.
	data, synced []byte
	writes       []diskWrite

	// Of a folder, likewise.
	entries, syncedEntries map[string]*diskFile
	moves                  []diskMove
}

// diskWrite is one write to a file, or with nil data a change of its size to off.
type diskWrite struct {
	off  int64
	data []byte
}

// diskMove is one act in a folder: name now is file, or nothing when file is nil. also is the other half of a rename.
type diskMove struct {
	name string
	file *diskFile
	also string // name that is gone with it, or ""
}

func newPowerDisk() *powerDisk {
	d := &powerDisk{}
	d.root = d.newFile(syscall.S_IFDIR | 0o700)
	return d
}

func (d *powerDisk) newFile(mode uint32) *diskFile {
	d.nextID++
	f := &diskFile{id: d.nextID, mode: mode, mtime: time.Now()}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		f.entries, f.syncedEntries = map[string]*diskFile{}, map[string]*diskFile{}
	}
	return f
}

func (f *diskFile) isDir() bool { return f.entries != nil }

// apply changes data by w.
func (w diskWrite) apply(data []byte) []byte {
	if w.data == nil {
		if int64(len(data)) >= w.off {
			return data[:w.off]
		}
		return append(data, make([]byte, w.off-int64(len(data)))...)
	}
	if end := w.off + int64(len(w.data)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[w.off:], w.data)
	return data
}

func (f *diskFile) change(w diskWrite) {
	f.data = w.apply(f.data)
	f.writes = append(f.writes, w)
	f.mtime = time.Now()
}

// move acts in a folder.
func (f *diskFile) move(m diskMove) {
	m.apply(f.entries)
	f.moves = append(f.moves, m)
	f.mtime = time.Now()
}

func (m diskMove) apply(entries map[string]*diskFile) {
	if m.also != "" {
		delete(entries, m.also)
	}
	if m.file == nil {
		delete(entries, m.name)
	} else {
		entries[m.name] = m.file
	}
}

// sync puts f on disk as it is.
func (f *diskFile) sync() {
	for _, w := range f.writes {
		f.synced = w.apply(f.synced)
	}
	for _, m := range f.moves {
		m.apply(f.syncedEntries)
	}
	f.writes, f.moves = nil, nil
}

// cut is the loss of power: of each file and folder some of what was not synced is kept, as seed decides.
func (d *powerDisk) cut(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 0))
	seen := map[*diskFile]bool{}
	var cut func(f *diskFile)
	cut = func(f *diskFile) {
		if seen[f] {
			return
		}
		seen[f] = true
		if !f.isDir() {
			f.cutWrites(r)
			return
		}
		for _, m := range f.moves[:r.IntN(len(f.moves)+1)] { // a folder's acts are journaled in order
			m.apply(f.syncedEntries)
		}
		f.moves = nil
		f.entries = map[string]*diskFile{}
		names := make([]string, 0, len(f.syncedEntries))
		for name := range f.syncedEntries {
			names = append(names, name)
		}
		slices.Sort(names) // the same seed does the same
		for _, name := range names {
			f.entries[name] = f.syncedEntries[name]
			cut(f.entries[name])
		}
	}
	cut(d.root)
}

// page is the grain in which bytes reach the disk.
const page = 4096

// cutWrites keeps none, all, the first few (the last of them torn) or any of the writes that were not synced.
func (f *diskFile) cutWrites(r *rand.Rand) {
	switch r.IntN(4) {
	case 0:
	case 1:
		f.sync()
	case 2:
		n := r.IntN(len(f.writes) + 1)
		for i, w := range f.writes[:n] {
			if i == n-1 && len(w.data) > page {
				w.data = w.data[:r.IntN(len(w.data)/page+1)*page]
			}
			f.synced = w.apply(f.synced)
		}
	default:
		for _, w := range f.writes {
			if r.IntN(2) == 0 {
				f.synced = w.apply(f.synced)
			}
		}
	}
	f.writes = nil
	f.data = slices.Clone(f.synced)
}
