package keeper_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/hozo-dev/hozo/internal/keeper"
)

// A process that replaces another of its instance writes the same log for a while.
func TestTwoProcessesShareALogAndNoByteIsLostOrOverwritten(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	const lines, keep = 20000, 100
	path := k.state + "/logs/web.1.log"
	names := []string{"web.1", "web.1+"}
	for _, name := range names {
		k.spawn(name, "count", func(s *keeper.Spawn) { s.Log = keeper.Log{Path: path, MaxBytes: 50000, Keep: keep} }, fmt.Sprint(lines))
	}
	for _, name := range names {
		if e := k.await(keeper.EventExited, name); e.Process.LogDropped != 0 || e.Process.Exit.Code != 0 {
			t.Fatalf("ended as %+v", e.Process)
		}
	}
	// Lines may be cut where the writers take turns, so what is compared is every byte, whatever its place.
	var got, want [256]int
	files := 0
	for i := range keep + 1 {
		file := path
		if i > 0 {
			file = fmt.Sprintf("%s.%d", path, i)
		}
		data, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files++
		for _, b := range data {
			got[b]++
		}
	}
	for i := range lines {
		for _, b := range []byte(fmt.Sprintf("line %d of a program that counts\n", i)) {
			want[b] += len(names)
		}
	}
	if got != want || files < 20 {
		t.Errorf("%d files hold %v, written was %v", files, got, want)
	}
}
