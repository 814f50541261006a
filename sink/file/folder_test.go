package file

import "testing"

func FuzzParseNameReadsWhatFileNameWrites(f *testing.F) {
	f.Add("00000000000000000001-00000000000000004711.ndjson.zst", uint64(1), uint64(4711))
	f.Add("00000000000000000001-18446744073709551616.ndjson.zst", uint64(5), uint64(4))
	f.Add("+0000000000000000001-00000000000000000002.ndjson.zst", uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, name string, first, last uint64) {
		if lo, hi, ok := parseName(name); ok && (lo == 0 || hi < lo || fileName(lo, hi) != name) {
			t.Fatalf("%q is read as %d to %d", name, lo, hi)
		}
		lo, hi, ok := parseName(fileName(first, last))
		if want := first > 0 && last >= first; ok != want || (ok && (lo != first || hi != last)) {
			t.Fatalf("%d to %d is read as %d to %d, %v", first, last, lo, hi, ok)
		}
	})
}
