package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/tidwall/gjson"
)

// lake is the folder of a file sink. While it works only names are looked at; files are read when it has come to rest.
type lake struct {
	dir    string
	counts map[string]uint64 // events in each finished file read so far
}

var _ store = (*lake)(nil)

// await waits until there is no unfinished file, and has not been for a while, and the finished ones hold n events. When
// the last one was stored is told by the file system: a file gets its name in one act, which sets its change time.
func (l *lake) await(ctx context.Context, n uint64) (time.Time, error) {
	if l.counts == nil {
		l.counts = make(map[string]uint64)
	}
	var (
		stored uint64
		last   time.Time
		seen   int
		calm   int
	)
	err := poll(ctx, "files", 10*time.Millisecond, func() (bool, error) {
		finished, unfinished, err := l.files()
		if err != nil {
			return false, err
		}
		if len(finished) != seen || unfinished > 0 || len(finished) == len(l.counts) {
			seen, calm = len(finished), 0
			return false, nil
		}
		if calm++; calm < 5 { // 50 ms without change: the flow has probably ended
			return false, nil
		}
		stored = 0
		for _, path := range finished {
			if _, known := l.counts[path]; !known {
				if l.counts[path], err = countLines(path); err != nil {
					return false, err
				}
			}
			stored += l.counts[path]
			at, err := changed(path)
			if err != nil {
				return false, err
			}
			if at.After(last) {
				last = at
			}
		}
		return stored >= n, nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("%d of %d stored: %w", stored, n, err)
	}
	return last, nil
}

func (l *lake) files() (finished []string, unfinished int, err error) {
	finished, err = filepath.Glob(filepath.Join(l.dir, "*", "*.ndjson.zst"))
	if err != nil {
		return nil, 0, err
	}
	parts, err := filepath.Glob(filepath.Join(l.dir, "*", "*.part"))
	return finished, len(parts), err
}

func (l *lake) each(_ context.Context, visit func(id, kind []byte)) error {
	finished, unfinished, err := l.files()
	if err != nil {
		return err
	}
	if unfinished > 0 {
		return fmt.Errorf("%w: %d files are unfinished", errWrong, unfinished)
	}
	for _, path := range finished {
		err := decode(path, func(r io.Reader) error {
			lines := bufio.NewReaderSize(r, 1<<20)
			for {
				line, err := lines.ReadSlice('\n')
				if errors.Is(err, io.EOF) && len(line) == 0 {
					return nil
				}
				if err != nil {
					return err
				}
				if !gjson.ValidBytes(line) {
					return fmt.Errorf("%w: no JSON: %s", errWrong, line)
				}
				fields := gjson.GetManyBytes(line, "id", "type")
				visit([]byte(fields[0].String()), []byte(fields[1].String()))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *lake) close() error { return nil }

func countLines(path string) (n uint64, err error) {
	err = decode(path, func(r io.Reader) error {
		buf := make([]byte, 1<<20)
		for {
			got, err := r.Read(buf)
			n += uint64(bytes.Count(buf[:got], []byte{'\n'}))
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	return n, err
}

func decode(path string, read func(io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	plain, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("decompress %s: %w", path, err)
	}
	defer plain.Close()
	if err := read(plain); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// changed is the change time of a file: when it got its name.
func changed(path string) (time.Time, error) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, fmt.Errorf("no change time of %s", path)
	}
	return time.Unix(stat.Ctim.Unix()), nil
}
