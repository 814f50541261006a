package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"syscall"
)

// binaries knows the content of the programs that instances run. A program that was built anew at the same path is a
// change like any other: its digest is in the cold part of the instance. Files are read again only when their size,
// time or inode is another one. It is safe for concurrent use.
type binaries struct {
	mu    sync.Mutex
	known map[string]binary // by path
}

// binary is a file as it was when it was read.
type binary struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Time   int64  `json:"time"` // of its last change, in ns
	Inode  uint64 `json:"inode"`
	Device uint64 `json:"device"`
}

func newBinaries() *binaries { return &binaries{known: map[string]binary{}} }

// digest returns the digest of the program at path, or "" when there is none. With fresh it looks at the file; without,
// it returns what it knows, so that a node that starts again, or scales a service, takes no new build along that nobody
// has applied.
func (b *binaries) digest(path string, fresh bool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.known[path]
	if known && !fresh {
		return old.Digest
	}
	info, err := os.Stat(path)
	if err != nil {
		return "" // its start will say what is wrong
	}
	now := binary{Size: info.Size(), Time: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		now.Inode, now.Device = sys.Ino, uint64(sys.Dev) //nolint:unconvert // an int32 on macOS
	}
	now.Digest = old.Digest
	if known && now == old {
		return old.Digest
	}
	now.Digest, err = digestFile(path)
	if err != nil {
		// A program that may be run but not read is told by its outside.
		now.Digest = fmt.Sprintf("%d-%d-%d", now.Size, now.Time, now.Inode)
	}
	b.known[path] = now
	return now.Digest
}

func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// save and load carry what is known over to the next node.
func (b *binaries) save(of map[string]bool) map[string]binary {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]binary, len(of))
	for path := range of {
		if one, ok := b.known[path]; ok {
			all[path] = one
		}
	}
	return all
}

func (b *binaries) load(all map[string]binary) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.Copy(b.known, all)
}
