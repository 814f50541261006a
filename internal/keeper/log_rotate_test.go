//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/logfile"
)

func (k *kept) rotate(name string) {
	k.t.Helper()
	if err := k.client.Rotate(limited(k.t), name); err != nil {
		k.t.Fatal(err)
	}
}

func TestRotateNowEndsTheFileAtALine(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := k.state + "/logs/drip.log"
	k.spawn("drip", "drip", func(s *keeper.Spawn) { s.Log.Keep = 9 })
	for round := range 3 {
		until(t, "output", func() bool { return size(path) > 0 })
		k.rotate("drip")
		data, err := os.ReadFile(path + ".1")
		if err != nil || !strings.HasSuffix(string(data), "drop\n") {
			t.Fatalf("round %d: %q, %v", round, data, err)
		}
	}
	if err := k.client.Kill(limited(t), "drip"); err != nil {
		t.Fatal(err)
	}
	if all := history(t, path); strings.ReplaceAll(all, "drop\n", "") != "" {
		t.Errorf("rotation left %q", all)
	}
	k.rotate("drip") // of the dead
	if size(path) > 0 || size(path+".1") == 0 {
		t.Error("the log of a dead process was not rotated")
	}
	before := size(path + ".1")
	k.rotate("drip")
	if size(path+".1") != before {
		t.Error("an empty log was rotated")
	}
	if err := k.client.Rotate(limited(t), "none"); fault.Code(err) != "keeper/no-process" {
		t.Errorf("rotation of a stranger: %v", err)
	}
	k.spawn("silent", "exit", func(s *keeper.Spawn) { s.Log.Path = "" }, "0")
	if err := k.client.Rotate(limited(t), "silent"); fault.Code(err) != "keeper/not-rotated" {
		t.Errorf("rotation of nothing: %v", err)
	}
}

func TestRotateNowDoesNotWaitForALineThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.spawn("begin", "begin", func(s *keeper.Spawn) { s.Notify, s.Log.Keep = true, 1 })
	k.await(keeper.EventNotify, "begin")
	until(t, "output", func() bool { return size(k.state+"/logs/begin.log") > 0 })
	k.rotate("begin")
	if data, err := os.ReadFile(k.state + "/logs/begin.log.1"); err != nil || string(data) != "begun" {
		t.Errorf("rotated %q, %v", data, err)
	}
}

func TestLogIsRotatedByAge(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := k.state + "/logs/drip.log"
	k.spawn("drip", "drip", func(s *keeper.Spawn) { s.Log.Age, s.Log.Keep = 200*time.Millisecond, 100 })
	until(t, "three files", func() bool { return size(path+".3") > 0 })
	if err := k.client.Kill(limited(t), "drip"); err != nil {
		t.Fatal(err)
	}
	if all := history(t, path); strings.ReplaceAll(all, "drop\n", "") != "" {
		t.Errorf("rotation left %q", all)
	}
	// A process that has gone quiet has its file rotated as well.
	k.spawn("begin", "begin", func(s *keeper.Spawn) { s.Log.Age, s.Log.Keep = 100*time.Millisecond, 1 })
	until(t, "the quiet file", func() bool { return size(k.state+"/logs/begin.log.1") == int64(len("begun")) })
}

func TestRotatedLogsAreCompressed(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	const lines = 20000
	path := k.state + "/logs/count.log"
	k.spawn("count", "count", func(s *keeper.Spawn) { s.Log.MaxBytes, s.Log.Keep, s.Log.Compress = 50000, 50, true }, fmt.Sprint(lines))
	if e := k.await(keeper.EventExited, "count"); e.Process.LogDropped != 0 {
		t.Errorf("ended as %+v", e.Process)
	}
	until(t, "compression", func() bool {
		files, err := logfile.List(path)
		if err != nil || len(files) < 10 {
			return false
		}
		for _, f := range files {
			if f.Slot > 0 && !f.Zst {
				return false
			}
		}
		return true
	})
	r, err := logfile.NewReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range lines {
		line, ok, err := r.Next()
		if !ok || err != nil || string(line.Text) != fmt.Sprintf("line %d of a program that counts", i) {
			t.Fatalf("line %d is %q, %v", i, line.Text, err)
		}
		if ago := time.Since(line.Time); ago < 0 || ago > time.Minute {
			t.Fatalf("line %d was captured %v ago", i, ago)
		}
	}
}

func TestLogSettingsChangeWhileTheProcessRuns(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	path := k.state + "/logs/drip.log"
	p := k.spawn("drip", "drip", nil)
	until(t, "more than the later limit", func() bool { return size(path) > 500 })
	ctx := limited(t)
	if err := k.client.SetLog(ctx, "drip", keeper.Log{Path: path, MaxBytes: 100, Keep: 2}); err != nil {
		t.Fatal(err)
	}
	until(t, "two files", func() bool { return size(path+".2") == 100 })
	if err := k.client.SetLog(ctx, "drip", keeper.Log{Path: path, MaxBytes: 100, Keep: 1, Compress: true}); err != nil {
		t.Fatal(err)
	}
	until(t, "one compressed file", func() bool { return size(path+".1.zst") > 0 && size(path+".2") == 0 })
	for _, bad := range []keeper.Log{{Path: path + "x"}, {Path: path, Keep: -1}, {Path: path, Full: "x"}} {
		if err := k.client.SetLog(ctx, "drip", bad); fault.Code(err) != "keeper/bad-request" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if now := k.record("drip"); now.Run != p.Run || now.Exit != nil || now.LogDropped != 0 {
		t.Errorf("the process is %+v", now)
	}
}

// size is that of a file, 0 when there is none.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
