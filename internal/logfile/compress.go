package logfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// compressBlock is how much is compressed between two looks at stop.
	compressBlock = 128 << 10
	// compressWindow keeps an encoder near 2 MiB; text of logs repeats itself well within it.
	compressWindow = 512 << 10
)

var errStopped = errors.New("stopped")

// Compress compresses the rotated files of the log at path that are not compressed yet, the oldest first, until that is
// done or stop is closed. names is held
// while files get other names; whoever rotates the log must hold it too. A crash at any moment leaves the original or the
// complete compressed file, or both, which count as one.
func Compress(stop <-chan struct{}, path string, names sync.Locker) error {
	for {
		files, err := List(path)
		if err != nil {
			return err
		}
		i := 0
		for i < len(files) && (files[i].Zst || files[i].Slot == 0 || !files[i].Info.Mode().IsRegular()) {
			i++
		}
		if i == len(files) {
			return remove(path + tempSuffix + zstSuffix)
		}
		err = compressOne(stop, path, files[i], names)
		if errors.Is(err, errStopped) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func compressOne(stop <-chan struct{}, path string, of File, names sync.Locker) error {
	in, err := os.Open(of.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // rotated on just now; the next look finds it
	}
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	temp := path + tempSuffix + zstSuffix
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = encode(stop, out, in)
	if err == nil {
		err = out.Sync() // its name must not outlive its bytes: the original is removed next
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Chtimes(temp, info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = commit(path, temp, info, names)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("compress %s: %w", of.Path, err), remove(temp))
	}
	return nil
}

// commit puts the compressed file in the place that its original has by now.
func commit(path, temp string, original os.FileInfo, names sync.Locker) error {
	names.Lock()
	defer names.Unlock()
	files, err := List(path)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Slot > 0 && os.SameFile(f.Info, original) {
			if err := os.Rename(temp, slotPath(path, f.Slot)+zstSuffix); err != nil {
				return err
			}
			return remove(f.Path)
		}
	}
	return remove(temp) // dropped meanwhile
}

func encode(stop <-chan struct{}, out io.Writer, in io.Reader) error {
	enc, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(compressWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	buf := make([]byte, compressBlock)
	for {
		select {
		case <-stop:
			return errors.Join(errStopped, enc.Close())
		default:
		}
		n, err := in.Read(buf)
		if n > 0 {
			if _, err := enc.Write(buf[:n]); err != nil {
				return errors.Join(err, enc.Close())
			}
		}
		if errors.Is(err, io.EOF) {
			return enc.Close()
		}
		if err != nil {
			return errors.Join(err, enc.Close())
		}
	}
}
