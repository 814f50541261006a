package sinktest

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/sink"
)

// dirEnv tells the Writer where to write.
const dirEnv = "HOZO_SINKTEST_DIR"

const (
	killRounds  = 20
	killBatch   = 3   // frames
	killFlush   = 4   // batches between two flushes
	killSteps   = 60  // most batches before the kill
	killedAfter = 500 // frames at which a Writer that nobody killed stops
)

// Writer is the body of a child process for Kill: it goes on writing at the watermark and says each step on stdout.
func Writer(open func(ctx context.Context, dir string) (sink.Target, error)) func() {
	return func() {
		if err := writeOn(context.Background(), open); err != nil {
			fmt.Fprintln(os.Stderr, "writer:", err)
			os.Exit(1)
		}
	}
}

func writeOn(ctx context.Context, open func(ctx context.Context, dir string) (sink.Target, error)) error {
	target, err := open(ctx, os.Getenv(dirEnv))
	if err != nil {
		return err
	}
	after, err := target.Watermark(ctx, stream)
	if err != nil {
		return err
	}
	for step := 1; step < killedAfter; step++ {
		if _, err := target.Write(ctx, Frames(stream, after+1, after+killBatch)); err != nil {
			return err
		}
		after += killBatch
		if step%killFlush == 0 {
			if _, err := target.Flush(ctx, stream); err != nil {
				return err
			}
		}
		fmt.Println(after)
	}
	return target.Close()
}

// Kill kills a process in the middle of its writing, many times, and checks after each that the target holds exactly
// the events up to its watermark. child is the name under which TestMain runs Writer.
func Kill(t *testing.T, h Harness, child string) {
	t.Helper()
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	var last uint64
	for round := range killRounds {
		cmd := testkit.Command(t, child, dirEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range random.IntN(killSteps) {
			if !lines.Scan() {
				break
			}
		}
		// The child writes on while the signal is on its way, so it dies anywhere.
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatalf("round %d: kill: %v", round, err)
		}
		_ = cmd.Wait() // "signal: killed"
		o := open(t, h, dir)
		watermark := o.watermark(stream)
		o.close()
		if watermark < last {
			t.Fatalf("round %d: the watermark went back from %d to %d", round, last, watermark)
		}
		last = watermark
		if got, want := h.Rows(t, dir, stream), Events(stream, 1, last); !slices.Equal(got, want) {
			t.Fatalf("round %d: %d rows up to watermark %d, want %d", round, len(got), last, len(want))
		}
	}
	if last == 0 {
		t.Fatalf("nothing was durable after %d rounds", killRounds)
	}
	t.Logf("%d rounds, %d frames", killRounds, last)
}

// FullDisk fills the file system under the target, and checks that it fails, and goes on where it was when there is
// room again.
func FullDisk(t *testing.T, h Harness) {
	t.Helper()
	const size, ballast = 4 << 20, 2 << 20
	dir := testkit.Tmpfs(t, size)
	if err := os.WriteFile(dir+"/ballast", make([]byte, ballast), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/target", 0o700); err != nil {
		t.Fatal(err)
	}
	o := open(t, h, dir+"/target")
	o.watermark(stream)
	const perBatch = 20
	seq, failures, full := uint64(1), 0, false
	for seq < 4000 {
		b := noise(seq, seq+perBatch-1)
		_, err := o.Write(t.Context(), b)
		if err == nil && seq%100 == 1 {
			_, err = o.Flush(t.Context(), stream)
		}
		if err == nil {
			seq += perBatch
			if full && failures >= 3 && seq%500 == 1 {
				break
			}
			continue
		}
		failures++
		if failures == 3 { // it stays full while nothing changes
			full = true
			if err := os.Remove(dir + "/ballast"); err != nil {
				t.Fatal(err)
			}
		}
		if failures > 50 {
			t.Fatalf("still failing with room on the disk: %v", err)
		}
	}
	if !full {
		t.Fatal("the disk was never full")
	}
	o.flush(stream)
	o.wantRows(stream, noiseEvents(1, seq-1))
}
