package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/sink/file"
	"github.com/hozo-dev/hozo/sink/sinktest"
	"github.com/hozo-dev/hozo/wire"
	"github.com/klauspost/compress/zstd"
)

const stream = "events.test"

func TestMain(m *testing.M) { testkit.Main(m, testkit.Child("writer", sinktest.Writer(openIn))) }

// openIn rotates early, so that the suite sees finished files and a part.
func openIn(_ context.Context, dir string) (sink.Target, error) {
	t, err := file.Open(dir, file.Config{RotateBytes: 700, CheckLines: true})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func harness() sinktest.Harness {
	return sinktest.Harness{Open: openIn, Poison: []byte("two\nlines"), Rows: rows}
}

func files(t testing.TB, dir, source string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, source, "*.zst"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func rows(t testing.TB, dir, source string) []string {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	var all []string
	for _, name := range files(t, dir, source) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := dec.DecodeAll(data, nil)
		if err != nil {
			t.Fatalf("decode %s: %v", name, err)
		}
		for line := range bytes.Lines(raw) {
			all = append(all, string(bytes.TrimSuffix(line, []byte("\n"))))
		}
	}
	return all
}

func TestTarget(t *testing.T) { sinktest.Run(t, harness()) }

func TestKilledWriterLeavesRowsEqualToLedger(t *testing.T) {
	t.Parallel()
	sinktest.Kill(t, harness(), "writer")
}

func TestFullDiskDelaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	sinktest.FullDisk(t, sinktest.Harness{Rows: rows, Open: func(_ context.Context, dir string) (sink.Target, error) {
		return file.Open(dir, file.Config{RotateBytes: 100 << 10})
	}})
}

func openDir(t *testing.T, dir string, cfg file.Config) *file.Target {
	t.Helper()
	target, err := file.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := target.Watermark(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	return target
}

func TestFramesAreCopiedAsTheyAreStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := openDir(t, dir, file.Config{})
	b := sinktest.Frames(stream, 1, 5)
	var want []byte
	for _, f := range b.Frames {
		_, payload := f.Stored()
		want = append(want, payload...)
	}
	if _, err := target.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := target.Flush(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, stream, "00000000000000000001-00000000000000000005.ndjson.zst")
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the file is not the payloads one after the other")
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode is %v, %v; want 0600", info.Mode(), err)
	}
}

func TestFilesRotateBySizeIntoContiguousRanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := openDir(t, dir, file.Config{RotateBytes: 500})
	var watermark uint64
	for seq := uint64(1); seq <= 40; seq += 2 {
		w, err := target.Write(t.Context(), sinktest.Frames(stream, seq, seq+1))
		if err != nil {
			t.Fatal(err)
		}
		watermark = w
	}
	names := files(t, dir, stream)
	if len(names) < 3 {
		t.Fatalf("%d files of 500 bytes", len(names))
	}
	next := uint64(1)
	for _, name := range names {
		var first, last uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "%d-%d.ndjson.zst", &first, &last); err != nil {
			t.Fatal(err)
		}
		if first != next {
			t.Fatalf("%s does not begin at %d", name, next)
		}
		next = last + 1
	}
	if watermark != next-1 {
		t.Fatalf("the watermark is %d, the files end at %d", watermark, next-1)
	}
}

func TestBrokenRangesAreFaultsAtStart(t *testing.T) {
	t.Parallel()
	name := func(first, last int) string { return fmt.Sprintf("%020d-%020d.ndjson.zst", first, last) }
	for want, names := range map[string][]string{
		"file/gap":     {name(1, 3), name(5, 9)},
		"file/overlap": {name(1, 3), name(3, 9)},
		"":             {name(4, 6), name(7, 9), "notes.txt", "1-2.ndjson.zst", name(9, 8)},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, stream), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, n := range append(names, "00000000000000000010.part") {
			if err := os.WriteFile(filepath.Join(dir, stream, n), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		target, err := file.Open(dir, file.Config{})
		if err != nil {
			t.Fatal(err)
		}
		w, err := target.Watermark(t.Context(), stream)
		if got := fault.Code(err); got != want || (err == nil && w != 9) {
			t.Errorf("%v: watermark %d, %v", names, w, err)
		}
		if _, err := os.Stat(filepath.Join(dir, stream, "00000000000000000010.part")); want == "" && !os.IsNotExist(err) {
			t.Errorf("the unfinished file is still there: %v", err)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSourceCannotLeaveTheFolder(t *testing.T) {
	t.Parallel()
	target := openDir(t, t.TempDir(), file.Config{})
	for _, source := range []string{"../x", "a/b", "", ".", ".."} {
		if _, err := target.Watermark(t.Context(), source); fault.Code(err) != "file/config" {
			t.Errorf("%q: got %v", source, err)
		}
	}
}

func TestEventWithNewlinesBecomesOneLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := openDir(t, dir, file.Config{CheckLines: true})
	b := sink.Batch{Source: stream, Frames: []*bus.Frame{
		sinktest.Frame(stream, 1, wire.CodecZstd, []byte(`{"a":1}`), []byte("{\n  \"b\": [\n 2 ]\n}"), []byte(`"\n"`)),
	}}
	if _, err := target.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := target.Flush(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	if got, want := rows(t, dir, stream), []string{`{"a":1}`, `{"b":[2]}`, `"\n"`}; !slices.Equal(got, want) {
		t.Fatalf("lines are %q, want %q", got, want)
	}
}

func TestNothingButFilesOfTheOwnerIsLeft(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lake")
	target := openDir(t, dir, file.Config{})
	if _, err := target.Write(t.Context(), sinktest.Frames(stream, 1, 2)); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.HasSuffix(path, ".part") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFrameThatCannotBeDecompressedIsPoison(t *testing.T) {
	t.Parallel()
	target := openDir(t, t.TempDir(), file.Config{})
	// Its checksum holds, so only whoever looks inside can tell.
	data := wire.AppendFrame(nil, wire.CodecS2, []uint32{2, 5}, 6, []byte("no block of s2"))
	b := sink.Batch{Source: stream, Frames: []*bus.Frame{sinktest.Message(stream, stream, 1, nil, data)}}
	_, err := target.Write(t.Context(), b)
	rows, ok := errors.AsType[*sink.RowError](err)
	if !ok || len(rows.Rows) != 2 || fault.Code(rows.Rows[0].Err) != bus.CodeBadFrame {
		t.Fatalf("write gave %v", err)
	}
	if _, err := target.Write(t.Context(), b.Without(rows.Rows)); err != nil {
		t.Fatal(err)
	}
	if w, err := target.Flush(t.Context(), stream); err != nil || w != 1 {
		t.Fatalf("watermark is %d, %v", w, err)
	}
}
