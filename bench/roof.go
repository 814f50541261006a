package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// roof is what the machine itself does at best: no contender can be faster than the roofs that it is under.
type roof struct {
	Name string  `json:"name"`
	MBps float64 `json:"mb_per_s"`
	What string  `json:"what"`
}

// roofTime is how long each roof is measured.
const roofTime = 300 * time.Millisecond

// roofs measures them all on events, in dir.
func roofs(ctx context.Context, dir string, events [][]byte) ([]roof, error) {
	var found []roof
	for _, one := range []struct {
		name, what string
		measure    func(context.Context, string, [][]byte) (float64, error)
	}{
		{"memcpy", "copy of 64 MiB blocks, one core", memcpyRoof},
		{"loopback", "one TCP connection, 256 KiB writes", loopbackRoof},
		{"write", "sequential write of 256 MiB into the page cache", func(_ context.Context, dir string, _ [][]byte) (float64, error) { return writeRoof(dir, false) }},
		{"write+fsync", "the same, fsynced at its end", func(_ context.Context, dir string, _ [][]byte) (float64, error) { return writeRoof(dir, true) }},
		{"zstd -1", "compression of request bodies, one core", zstdRoof},
		{"JSON check", "encoding/json.Valid of request bodies' events, one core", jsonRoof},
	} {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		speed, err := one.measure(ctx, dir, events)
		if err != nil {
			return nil, fmt.Errorf("measure roof %s: %w", one.name, err)
		}
		found = append(found, roof{one.name, speed, one.what})
	}
	return found, nil
}

func megabytes(n int64, took time.Duration) float64 { return float64(n) / 1e6 / took.Seconds() }

// repeat calls do, which handles and returns n bytes, for roofTime and returns MB/s.
func repeat(do func() int) float64 {
	do() // page faults and caches
	var total int64
	start := time.Now()
	for time.Since(start) < roofTime {
		total += int64(do())
	}
	return megabytes(total, time.Since(start))
}

func memcpyRoof(context.Context, string, [][]byte) (float64, error) {
	from, to := bytes.Repeat([]byte("hozo"), 16<<20), make([]byte, 64<<20)
	return repeat(func() int { return copy(to, from) }), nil
}

func loopbackRoof(ctx context.Context, _ string, _ [][]byte) (float64, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	var total int64
	var took time.Duration
	group := new(errgroup.Group)
	group.Go(func() error {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		start, buf := time.Now(), make([]byte, 256<<10)
		for {
			n, err := conn.Read(buf)
			total += int64(n)
			if errors.Is(err, io.EOF) {
				took = time.Since(start)
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	group.Go(func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return errors.Join(err, listener.Close()) // so that Accept ends
		}
		defer conn.Close()
		block := make([]byte, 256<<10)
		for start := time.Now(); time.Since(start) < roofTime; {
			if _, err := conn.Write(block); err != nil {
				return err
			}
		}
		return nil
	})
	err = group.Wait()
	return megabytes(total, took), err
}

// writeRoof is the better of two writes: the first also makes the kernel find the memory.
func writeRoof(dir string, sync bool) (float64, error) {
	first, err := writeOnce(dir, sync)
	if err != nil {
		return 0, err
	}
	second, err := writeOnce(dir, sync)
	return max(first, second), err
}

func writeOnce(dir string, sync bool) (speed float64, err error) {
	file, err := os.Create(filepath.Join(dir, "roof"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	block, start := make([]byte, 1<<20), time.Now()
	for i := range block {
		block[i] = byte(i * 7) // not zeros, which some disks do not write
	}
	for range 256 {
		if _, err := file.Write(block); err != nil {
			return 0, err
		}
	}
	if sync {
		if err := file.Sync(); err != nil {
			return 0, err
		}
	}
	return megabytes(256<<20, time.Since(start)), nil
}

func zstdRoof(_ context.Context, _ string, events [][]byte) (float64, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, err
	}
	var out []byte
	i := 0
	speed := repeat(func() int {
		body := events[i%len(events)]
		i++
		out = enc.EncodeAll(body, out[:0])
		return len(body)
	})
	return speed, enc.Close()
}

func jsonRoof(_ context.Context, _ string, events [][]byte) (float64, error) {
	i, bad := 0, 0
	speed := repeat(func() int {
		body := events[i%len(events)]
		i++
		for line := range bytes.Lines(body) {
			if !json.Valid(line) {
				bad++
			}
		}
		return len(body)
	})
	if bad > 0 {
		return 0, fmt.Errorf("%w: %d invalid events were to be sent", errWrong, bad)
	}
	return speed, nil
}
