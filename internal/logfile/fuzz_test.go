package logfile_test

import (
	"os"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/logfile"
)

// Any bytes may stand in an index, and in the log beside it: they are read without harm, and the log's bytes all come out.
func FuzzReader(f *testing.F) {
	f.Add([]byte("hozolog\x00\x07\x00\x00\x00\x00\x00\x00\x00"), []byte("one\ntwo\n"), int64(5))
	f.Add([]byte("hozolog\xff"), []byte("\xff\xfe\n\x00"), int64(0))
	f.Fuzz(func(t *testing.T, index, text []byte, since int64) {
		path := t.TempDir() + "/out.log"
		must(t, os.WriteFile(path, text, 0o600))
		must(t, os.WriteFile(path+".idx", index, 0o600))
		r, err := logfile.NewReader(path)
		must(t, err)
		defer r.Close()
		got := 0
		for {
			line, ok, err := r.Next()
			must(t, err)
			if !ok {
				rest, _ := r.Rest()
				got += len(rest.Text)
				break
			}
			got += len(line.Text)
			if !line.Part {
				got++
			}
		}
		if got != len(text) {
			t.Errorf("%d bytes of %d", got, len(text))
		}
		must(t, r.Since(time.Unix(0, since)))
		must(t, r.Tail(3))
		if got := all(t, r); len(got) > 3 {
			t.Errorf("the last 3 lines are %q", got)
		}
		x, err := logfile.OpenIndex(path, int64(len(text)), 0)
		must(t, err)
		must(t, x.Mark(time.Unix(0, since), int64(len(text))))
		must(t, x.Close())
	})
}
