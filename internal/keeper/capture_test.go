//go:build linux

package keeper_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/logfile"
)

// playCapture captures descriptor 3 into the log args[0], rotated beyond args[1] bytes.
func playCapture(args []string) int {
	if err := unix.SetNonblock(3, true); err != nil {
		panic(err)
	}
	spec := keeper.Log{Path: args[0], MaxBytes: int64(number(args[1])), Keep: 1000}
	if dropped, err := keeper.Capture(os.NewFile(3, "output"), spec); err != nil || dropped > 0 {
		fmt.Println(dropped, err)
		return 1
	}
	return 0
}

// A capture is killed at a hundred random instants while numbered lines flow. Another one goes on with the same pipe and
// the same log: whatever the first was at, no byte is missing and none is there twice.
func TestKilledCaptureLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/out.log"
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	stop, lines := make(chan struct{}), make(chan int)
	go func() {
		defer write.Close()
		out := bufio.NewWriterSize(write, 3000)
		for i := 0; ; i++ {
			select {
			case <-stop:
				if err := out.Flush(); err != nil {
					t.Error(err)
				}
				lines <- i
				return
			default:
				fmt.Fprintf(out, "line %d of a program that counts\n", i)
			}
		}
	}()
	start := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), self(), path, "1000000")
		cmd.Env, cmd.ExtraFiles = roleOf("capture"), []*os.File{read}
		cmd.Stdout = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	const kills = 100
	for range kills {
		cmd := start()
		before := logSize(t, path)
		moved := int64(rand.IntN(300_000)) // so far it gets before it is killed
		until(t, "output in the log", func() bool { return logSize(t, path) > before+moved })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
	}
	last := start()
	close(stop)
	want := <-lines
	if err := last.Wait(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(strings.NewReader(history(t, path)))
	got := 0
	for ; in.Scan(); got++ {
		if in.Text() != fmt.Sprintf("line %d of a program that counts", got) {
			t.Fatalf("in place of line %d stands %q", got, in.Text())
		}
	}
	if got != want {
		t.Errorf("%d lines of %d", got, want)
	}
}

// A capture that keeps up never finds its pipe full, however much flows.
func TestPipeOfAFloodGetsMoreRoom(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	captured := make(chan error, 1)
	path := t.TempDir() + "/out.log"
	go func() {
		_, err := keeper.Capture(read, keeper.Log{Path: path, MaxBytes: 1 << 20, Keep: 1})
		captured <- err
	}()
	block := bytes.Repeat([]byte("a line of a flood\n"), 3000)
	until(t, "a larger pipe", func() bool {
		for range 100 {
			if _, err := write.Write(block); err != nil {
				t.Fatal(err)
			}
		}
		size, err := unix.FcntlInt(write.Fd(), unix.F_GETPIPE_SZ, 0)
		return err == nil && size == 1<<20
	})
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-captured; err != nil {
		t.Fatal(err)
	}
}

// history is everything that the files of a log hold.
func history(t testing.TB, path string) string {
	t.Helper()
	files, err := logfile.List(path)
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for _, f := range files {
		data, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// logSize is how much there is of a log; while it is rotated that may be less than there was.
func logSize(t *testing.T, path string) (sum int64) {
	t.Helper()
	files, err := logfile.List(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		sum += f.Info.Size()
	}
	return sum
}

// FuzzCapture moves any bytes in chunks of any size: none may be lost, no file may grow much beyond its limit, and a file
// ends within a line only where that line is long.
func FuzzCapture(f *testing.F) {
	f.Add([]byte("one\ntwo\nthree\n"), uint16(5), uint8(3))
	f.Add(bytes.Repeat([]byte("x"), 300), uint16(10), uint8(200))
	f.Add([]byte("\n\n\n\n"), uint16(1), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, limit uint16, chunk uint8) {
		if chunk == 0 {
			return
		}
		path := t.TempDir() + "/out.log"
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			for part := range slices.Chunk(data, int(chunk)) {
				if _, err := write.Write(part); err != nil {
					failed <- err
				}
			}
			failed <- write.Close()
		}()
		dropped, err := keeper.Capture(read, keeper.Log{Path: path, MaxBytes: int64(limit), Keep: len(data) + 1})
		if err != nil || dropped > 0 {
			t.Fatalf("dropped %d, %v", dropped, err)
		}
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		if got := history(t, path); got != string(data) {
			t.Fatalf("wrote %q, got %q", data, got)
		}
		const slack = 2 * 64 << 10
		files, err := logfile.List(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if limit > 0 && f.Info.Size() > int64(limit)+slack {
				t.Errorf("file of %d bytes at most has %d", limit, f.Info.Size())
			}
		}
	})
}

// How fast is output moved into a log, and what does a GB of it cost the keeper's side? The writer is another process.
func BenchmarkCapture(b *testing.B) {
	const mib = 1 << 20
	for _, size := range []int64{0, 16 * mib} {
		b.Run(fmt.Sprintf("rotate=%d", size), func(b *testing.B) {
			path := b.TempDir() + "/out.log"
			read, write, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(mib)
			cmd := exec.CommandContext(b.Context(), self(), fmt.Sprint(b.N))
			cmd.Env, cmd.Stdout = roleOf("flood"), write
			before := cpuSeconds(b)
			b.ResetTimer()
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			if err := write.Close(); err != nil {
				b.Fatal(err)
			}
			if dropped, err := keeper.Capture(read, keeper.Log{Path: path, MaxBytes: size, Keep: 2}); err != nil || dropped > 0 {
				b.Fatal(dropped, err)
			}
			b.StopTimer()
			b.ReportMetric((cpuSeconds(b)-before)/(float64(b.N)*mib/1e9), "cpu-s/GB")
			if err := cmd.Wait(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// cpuSeconds is what this process has used.
func cpuSeconds(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
