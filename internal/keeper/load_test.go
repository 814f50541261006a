//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/logfile"
)

// How long does a call of the keeper take, and how late is another process's line in its log, while one process writes
// 200 MB/s? An iteration is a call of list. The writer's own speed is reported too, for a machine may be too slow for it.
func BenchmarkControlUnderLoad(b *testing.B) {
	k := startKeeper(b)
	path := k.state + "/logs/pour.log"
	k.spawn("pour", "pour", func(s *keeper.Spawn) { s.Log.MaxBytes, s.Log.Keep = 64<<20, 1 }, "200")
	k.spawn("stamp", "stamp", nil)
	until(b, "the load", func() bool { return size(path) > 10_000_000 })
	r, err := logfile.NewReader(k.state + "/logs/stamp.log")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	if err := r.Tail(0); err != nil {
		b.Fatal(err)
	}
	var calls, delays []time.Duration
	began, poured, cpu := time.Now(), written(b, path), keeperCPU(b, k)
	for b.Loop() {
		start := time.Now()
		if _, _, err := k.client.List(b.Context()); err != nil {
			b.Fatal(err)
		}
		calls = append(calls, time.Since(start))
		for {
			line, ok, err := r.Next()
			if err != nil {
				b.Fatal(err)
			}
			if !ok {
				break
			}
			at, err := strconv.ParseInt(string(line.Text), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			delays = append(delays, time.Since(time.Unix(0, at)))
		}
		<-time.After(time.Millisecond) // a person's pace, and the processors are the writer's
	}
	moved := float64(written(b, path) - poured)
	b.ReportMetric(moved/1e6/time.Since(began).Seconds(), "MB/s")
	b.ReportMetric((keeperCPU(b, k)-cpu)/(moved/1e9), "keeper-cpu-s/GB")
	for name, all := range map[string][]time.Duration{"call": calls, "delay": delays} {
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, name+"-p99-ms")
	}
	if p := k.record("pour"); p.LogDropped > 0 || p.Exit != nil {
		b.Errorf("the writer is %+v", p)
	}
}

// written is how much a log of 64 MiB a file has got so far.
func written(b *testing.B, path string) int64 {
	b.Helper()
	for {
		files, err := logfile.List(path)
		if err != nil {
			b.Fatal(err)
		}
		if n := len(files); n > 0 && files[n-1].Slot == 0 {
			return int64(files[n-1].Seq)*(64<<20) + files[n-1].Info.Size()
		}
	}
}

// keeperCPU is what the keeper has used, in seconds.
func keeperCPU(b *testing.B, k *kept) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", k.cmd.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const tick = 100 // a second has as many, on every Linux that Go runs on
	return float64(number(fields[11])+number(fields[12])) / tick
}
