package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGridPrintsEachMetricOfEachContender(t *testing.T) {
	t.Parallel()
	g := newGrid([]metric{{"respawn", "ms", "killed"}, {"stop", "ms", "told"}}, "a", "b")
	g.add("a", "respawn", 3, 1, 2)
	g.add("b", "stop", 7)
	var text strings.Builder
	g.print(&text)
	for _, want := range []string{"2.00 (1.00..3.00)", "7.00 (7.00..7.00)", "killed"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	data, err := json.Marshal(report{Area: "x", Grid: g})
	if err != nil || !strings.Contains(string(data), `"figures":{"a":[3,1,2]}`) {
		t.Errorf("%s, %v", data, err)
	}
}

func TestQuantileIsAValueOfTheSample(t *testing.T) {
	t.Parallel()
	s := sample{40, 10, 30, 20}
	for q, want := range map[float64]float64{0: 10, 0.25: 10, 0.5: 20, 0.51: 30, 0.99: 40, 1: 40} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
}

func TestHellosOfChildrenAreHeardAndBadOnesReported(t *testing.T) {
	t.Parallel()
	h, err := hear(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unixgram", h.conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "p1 17 1000000 start")
	if err := h.await(t.Context(), "p1", func(last map[string]hello) bool { return last["p1"].pid == 17 }); err != nil {
		t.Fatal(err)
	}
	if got := h.of("p1"); got.at != time.Millisecond || got.what != "start" || h.heard() != 1 {
		t.Errorf("heard %+v, %d times", got, h.heard())
	}
	fmt.Fprint(conn, "p1 x 1 start")
	if err := h.await(t.Context(), "the error", func(map[string]hello) bool { return false }); err == nil {
		t.Error("a malformed hello is no error")
	}
	if err := h.close(); err != nil {
		t.Error(err)
	}
}

func TestFloodIsCountedByWholeLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	whole := strings.Repeat("x", 99) + "\n"
	if err := os.WriteFile(path, []byte(whole+"x\n"+whole+"> "+whole), 0o600); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]int{"": 2, "> ": 1} {
		if got, err := countFloodLines(path, prefix); err != nil || got != want {
			t.Errorf("with prefix %q: %d lines, %v; want %d", prefix, got, err, want)
		}
	}
}

func TestRatiosOfProcessesAreTurnedSoThatHigherIsBetter(t *testing.T) {
	t.Parallel()
	g := newGrid(processMetrics, hozoName, supervisordName)
	for name, figures := range map[string][2]float64{"respawn p50": {2, 1000}, "RSS parent, 200": {20, 30}, "log capture": {900, 150}} {
		g.add(hozoName, name, figures[0])
		g.add(supervisordName, name, figures[1])
	}
	g.add(hozoName, "RSS parent, 10", 15)
	g.add(hozoName, "RSS parent, 1000", 40)
	want := map[string]float64{
		"process_respawn_p50_vs_supervisord": 500, "process_parent_rss_vs_supervisord": 1.5, "process_log_capture_vs_supervisord": 6,
		"process_rss_per_child_flat": 5.0 / 190 / (20.0 / 800),
	}
	for _, r := range processRatios(g) {
		if r.Value != want[r.Name] {
			t.Errorf("%s is %g, want %g", r.Name, r.Value, want[r.Name])
		}
		delete(want, r.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}
