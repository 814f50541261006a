package dispatch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/dispatch"
)

var start = time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)

// play lets tasks out of lanes that never end until the book says no, and returns the lanes in their order. Each is begun
// at once, and with leave it leaves at once.
func play(b *dispatch.Book, now time.Time, most int, leave bool) []dispatch.Lane {
	var went []dispatch.Lane
	for len(went) < most {
		lane, ok, _ := b.Next(now)
		if !ok {
			return went
		}
		token := fmt.Sprint(now.UnixNano(), len(went))
		b.Release(token, lane, now)
		b.Begun(token)
		if leave {
			b.Left(token)
		}
		went = append(went, lane)
	}
	return went
}

func count(lanes []dispatch.Lane, of func(dispatch.Lane) string) map[string]int {
	n := map[string]int{}
	for _, l := range lanes {
		n[of(l)]++
	}
	return n
}

func byKey(l dispatch.Lane) string { return l.Key }

func TestKeysShareByTheirWeights(t *testing.T) {
	t.Parallel()
	weights := map[string]int{"big": 3}
	b := dispatch.NewBook(dispatch.Limits{}, func(key string) int { return weights[key] }, start)
	for _, key := range []string{"a", "b", "big"} {
		b.Arrive(dispatch.Lane{Kind: "k", Priority: 2, Key: key}, start)
	}
	n := count(play(b, start, 500, true), byKey)
	if n["a"] != 100 || n["b"] != 100 || n["big"] != 300 {
		t.Errorf("of 500 went %v", n)
	}
	// Who comes late gets its share from now on, and nothing for the time before.
	b.Arrive(dispatch.Lane{Kind: "k", Priority: 2, Key: "late"}, start)
	if n := count(play(b, start, 60, true), byKey); n["late"] < 9 || n["late"] > 11 || n["big"] < 29 {
		t.Errorf("of 60 more went %v", n)
	}
}

func TestPrioritiesOfAKeyGoSixThreeOne(t *testing.T) {
	t.Parallel()
	b := dispatch.NewBook(dispatch.Limits{}, func(string) int { return 1 }, start)
	for p := 1; p <= 3; p++ {
		b.Arrive(dispatch.Lane{Kind: "k", Priority: p, Key: "a"}, start)
	}
	n := count(play(b, start, 100, true), func(l dispatch.Lane) string { return fmt.Sprint(l.Priority) })
	if n["1"] != 60 || n["2"] != 30 || n["3"] != 10 {
		t.Errorf("of 100 went %v", n)
	}
	b.Empty(dispatch.Lane{Kind: "k", Priority: 1, Key: "a"})
	b.Empty(dispatch.Lane{Kind: "k", Priority: 2, Key: "a"})
	if n := len(play(b, start, 10, true)); n != 10 {
		t.Errorf("alone the lowest goes %d times of 10", n)
	}
}

func TestAKeyAtItsLimitHoldsUpNobody(t *testing.T) {
	t.Parallel()
	b := dispatch.NewBook(dispatch.Limits{Concurrency: 5, KeyConcurrency: 2}, func(string) int { return 1 }, start)
	for _, key := range []string{"a", "b", "c", dispatch.NoKey} {
		b.Arrive(dispatch.Lane{Kind: "k", Priority: 2, Key: key}, start)
	}
	n := count(play(b, start, 100, false), byKey)
	if all, _ := b.Out(""); all != 5 {
		t.Errorf("%d are out: %v", all, n)
	}
	for _, key := range []string{"a", "b", "c"} {
		if n[key] > 2 {
			t.Errorf("%d of %s are out", n[key], key)
		}
	}
	b.SetLimits(dispatch.Limits{KeyConcurrency: 3}, start)
	n = count(play(b, start, 50, false), byKey)
	for _, key := range []string{"a", "b", "c"} {
		if _, of := b.Out(key); of != 3 {
			t.Errorf("with a limit of three %d of %s are out", of, key)
		}
	}
	if n[dispatch.NoKey] < 40 {
		t.Errorf("of those without a key, which have no limit, went %d", n[dispatch.NoKey])
	}
}

func TestRatesHoldAndWait(t *testing.T) {
	t.Parallel()
	limits := dispatch.Limits{Rate: dispatch.Rate{N: 100, Per: time.Second}, KeyRate: dispatch.Rate{N: 10, Per: time.Second}}
	b := dispatch.NewBook(limits, func(string) int { return 1 }, start)
	for i := range 20 {
		b.Arrive(dispatch.Lane{Kind: "k", Priority: 2, Key: fmt.Sprint("key", i)}, start)
	}
	now, went := start, map[string]int{}
	turns := 0
	for now.Before(start.Add(10 * time.Second)) {
		for key, n := range count(play(b, now, 1000, true), byKey) {
			went[key] += n
		}
		_, ok, wait := b.Next(now)
		if ok || wait <= 0 {
			t.Fatalf("it says %v and to wait for %v", ok, wait)
		}
		now = now.Add(wait)
		turns++
	}
	all := 0
	for key, n := range went {
		all += n
		if n > 10*10+1 {
			t.Errorf("%d of %s in 10 s", n, key)
		}
	}
	if all < 980 || all > 1010 {
		t.Errorf("%d in 10 s", all)
	}
	if turns > 3000 {
		t.Errorf("it was asked %d times", turns)
	}
}

func TestAKeyThatWaitsForItsRateGoesWhenThatIsTakenBack(t *testing.T) {
	t.Parallel()
	b := dispatch.NewBook(dispatch.Limits{KeyRate: dispatch.Rate{N: 1, Per: 24 * time.Hour}}, func(string) int { return 1 }, start)
	b.Arrive(dispatch.Lane{Kind: "k", Priority: 2, Key: "a"}, start)
	if n := len(play(b, start, 10, true)); n != 1 {
		t.Errorf("%d went of one a day", n)
	}
	b.SetLimits(dispatch.Limits{}, start)
	if n := len(play(b, start, 10, true)); n != 10 {
		t.Errorf("without a limit %d of 10 went", n)
	}
}

func TestAKindThatNobodyBeginsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := dispatch.NewBook(dispatch.Limits{}, func(string) int { return 1 }, start)
	b.Arrive(dispatch.Lane{Kind: "stuck", Priority: 2, Key: "a"}, start)
	b.Arrive(dispatch.Lane{Kind: "goes", Priority: 2, Key: "a"}, start)
	n := map[string]int{}
	for i := range 100 {
		lane, ok, _ := b.Next(start)
		if !ok {
			t.Fatalf("after %v nothing goes", n)
		}
		token := fmt.Sprint(i)
		b.Release(token, lane, start)
		if n[lane.Kind]++; lane.Kind == "goes" {
			b.Begun(token)
			b.Left(token)
		}
	}
	if n["stuck"] > 10 || n["goes"] < 90 {
		t.Errorf("went %v", n)
	}
}

func TestTasksOfAnEarlierDispatcherCount(t *testing.T) {
	t.Parallel()
	b := dispatch.NewBook(dispatch.Limits{KeyConcurrency: 1}, func(string) int { return 1 }, start)
	lane := dispatch.Lane{Kind: "k", Priority: 2, Key: "a"}
	b.Found("before", lane, start)
	b.Found("before", lane, start)
	b.Arrive(lane, start)
	if went := play(b, start, 10, true); len(went) != 0 {
		t.Errorf("%v went beside it", went)
	}
	if old := b.Old(10, time.Second, start.Add(2*time.Second)); len(old) != 1 {
		t.Errorf("in doubt are %v", old)
	}
	b.Left("before")
	b.Left("before")
	if went := play(b, start, 10, false); len(went) != 1 {
		t.Errorf("then went %v", went)
	}
}
