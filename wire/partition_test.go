package wire_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hozo-dev/hozo/wire"
)

func TestPartitionsAreComputedAsAnyLanguageCan(t *testing.T) {
	t.Parallel()
	// From the reference implementation of FNV-1a: hash("") = 0x811c9dc5, hash("a") = 0xe40c292c, hash("foobar") = 0xbf9cf968.
	for key, want := range map[string]int{"": 0x811c9dc5 % 64, "a": 0xe40c292c % 64, "foobar": 0xbf9cf968 % 64} {
		if got := wire.PartitionOf([]byte(key), 64); got != want {
			t.Errorf("the partition of %q is %d, want %d", key, got, want)
		}
	}
}

func TestPartitionsFillEvenly(t *testing.T) {
	t.Parallel()
	const keys, n = 64_000, 64
	var have [n]int
	for i := range keys {
		have[wire.PartitionOf(fmt.Appendf(nil, "user-%d", i), n)]++
	}
	if least, most := slices.Min(have[:]), slices.Max(have[:]); least < 800 || most > 1200 {
		t.Errorf("%d keys fill %d partitions with %d to %d of them", keys, n, least, most)
	}
}

func TestStoredSubjectsSayWhatWasPublishedAndWhere(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"events.raw", "events.raw.eu", "events.raw.eu.north"} {
		stored := wire.PartitionSubject("events.raw", subject, 7)
		got, p, event := wire.SplitSubject("events.raw", stored)
		if got != subject || p != 7 || !event {
			t.Errorf("%s is stored on %s, which reads as %s in %d (event: %v)", subject, stored, got, p, event)
		}
		if got, p, event := wire.SplitSubject("events.raw", subject); got != subject || p != -1 || !event {
			t.Errorf("%s without a partition reads as %s in %d (event: %v)", subject, got, p, event)
		}
	}
	fence := wire.FenceSubject("events.raw", "count", "orders.in", 7)
	if !wire.IsFence("events.raw", fence) {
		t.Errorf("%s does not pass for a fence", fence)
	}
}

// A filter gives the same events whether their stream has partitions or not.
func TestFiltersOfPartitionsMatchWhatTheirSubjectsDo(t *testing.T) {
	t.Parallel()
	const stream = "events.raw"
	subjects := []string{"events.raw", "events.raw.eu", "events.raw.eu.north", "events.raw.us", "events.raw.fence"}
	for _, filters := range [][]string{nil, {"events.raw.eu"}, {"events.raw.*"}, {"events.raw.>"}, {"events.raw.eu.>", "events.raw.us"}, {"events.raw.*.north"}} {
		plain := filters
		if plain == nil {
			plain = wire.StreamSubjects(stream)
		}
		for _, subject := range subjects {
			want := covered(plain, subject)
			for _, p := range []int{0, 9} {
				stored := wire.PartitionSubject(stream, subject, p)
				if got := covered(wire.PartitionFilters(stream, filters, -1), stored); got != want {
					t.Errorf("%v gives %s: %v, want %v", filters, stored, got, want)
				}
				if got := covered(wire.PartitionFilters(stream, filters, 9), stored); got != (want && p == 9) {
					t.Errorf("%v in partition 9 gives %s: %v, want %v", filters, stored, got, want && p == 9)
				}
			}
		}
		if covered(wire.PartitionFilters(stream, filters, 9), wire.FenceSubject(stream, "count", stream, 9)) {
			t.Errorf("%v in partition 9 gives a fence", filters)
		}
	}
}

func covered(patterns []string, subject string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return wire.Covers(pattern, subject) })
}

func FuzzSplitSubject(f *testing.F) {
	for _, seed := range []string{"s", "s.@.3.a", "s.@.fence.x.y.1", "s.@.03", "s.@.", "s.@.-1.a", "t.@.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		subject, p, event := wire.SplitSubject("s", stored)
		if p >= 0 && (!event || wire.PartitionSubject("s", subject, p) != stored) {
			t.Errorf("%q reads as %q in %d, which is stored elsewhere", stored, subject, p)
		}
	})
}
