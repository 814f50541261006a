package ghevents_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/internal/ghevents"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The shares of the real hour, out of 7,702 events.
var shares = map[string]int{
	"PushEvent": 4280, "CreateEvent": 815, "IssueCommentEvent": 650, "WatchEvent": 642, "IssuesEvent": 373,
	"PullRequestEvent": 315, "ForkEvent": 213, "DeleteEvent": 141, "GollumEvent": 90, "PullRequestReviewCommentEvent": 85,
	"CommitCommentEvent": 56, "ReleaseEvent": 24, "MemberEvent": 16, "PublicEvent": 2,
}

type event struct {
	ID        string                     `json:"id"`
	Type      string                     `json:"type"`
	Actor     map[string]json.RawMessage `json:"actor"`
	Repo      map[string]json.RawMessage `json:"repo"`
	Payload   map[string]json.RawMessage `json:"payload"`
	Public    bool                       `json:"public"`
	CreatedAt string                     `json:"created_at"`
	Org       map[string]json.RawMessage `json:"org"`
}

func lines(t testing.TB, seed uint64, n int) [][]byte {
	t.Helper()
	g := ghevents.New(seed)
	all := make([][]byte, n)
	for i := range all {
		all[i] = g.Next(nil)
	}
	return all
}

func TestEveryLineIsOneValidEventWithAnIDOfItsOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, seed := range []uint64{0, 1, 7} {
		for _, line := range lines(t, seed, 2_000) {
			if line[len(line)-1] != '\n' || bytes.IndexByte(line, '\n') != len(line)-1 {
				t.Fatalf("not one line: %q", line)
			}
			dec := json.NewDecoder(bytes.NewReader(line))
			dec.DisallowUnknownFields()
			var e event
			if err := dec.Decode(&e); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			if seen[e.ID] {
				t.Fatalf("id %s comes twice", e.ID)
			}
			seen[e.ID] = true
			if shares[e.Type] == 0 || e.Actor["login"] == nil || e.Repo["name"] == nil || e.Payload == nil || !e.Public || e.CreatedAt == "" {
				t.Fatalf("incomplete event: %s", line)
			}
		}
	}
}

func TestSizesAndSharesAreThoseOfTheRealHour(t *testing.T) {
	t.Parallel()
	const n = 3 * 7702
	counts, sizes, total, orgs := map[string]int{}, make([]int, 0, n), 0, 0
	for _, line := range lines(t, 42, n) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		counts[e.Type]++
		sizes = append(sizes, len(line))
		total += len(line)
		if e.Org != nil {
			orgs++
		}
	}
	for name, want := range shares {
		// Four standard deviations of a count, plus one for the rarest.
		got, want := counts[name], 3*want
		if d := got - want; d*d > 16*want+16 {
			t.Errorf("%s: %d events, want about %d", name, got, want)
		}
	}
	slices.Sort(sizes)
	t.Logf("sizes %d / %d / %d / %d, mean %d, with org %.2f", sizes[0], sizes[n/2], sizes[n*9/10], sizes[n-1], total/n, float64(orgs)/n)
	within := func(name string, got, low, high int) {
		if got < low || got > high {
			t.Errorf("%s is %d bytes, want %d..%d", name, got, low, high)
		}
	}
	within("smallest", sizes[0], 340, 420)
	within("median", sizes[n/2], 850, 1000)
	within("p90", sizes[n*9/10], 4600, 5700)
	within("largest", sizes[n-1], 20_000, 31_353)
	within("mean", total/n, 2150, 2530)
}

func TestSameSeedGivesTheSameEvents(t *testing.T) {
	t.Parallel()
	a, b := lines(t, 3, 2000), lines(t, 3, 2000)
	if !slices.EqualFunc(a, b, bytes.Equal) {
		t.Error("two generators of seed 3 differ")
	}
	if c := lines(t, 4, 2000); slices.EqualFunc(a, c, bytes.Equal) {
		t.Error("seeds 3 and 4 give the same events")
	}
}

func TestTypesAreTheFourteenOfTheHour(t *testing.T) {
	t.Parallel()
	types := ghevents.Types()
	if len(types) != len(shares) {
		t.Fatalf("%d types, want %d", len(types), len(shares))
	}
	for _, name := range types {
		if shares[name] == 0 {
			t.Errorf("unknown type %s", name)
		}
	}
}

func TestCompressesAboutAsTheRealHour(t *testing.T) {
	t.Parallel()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	raw, packed := 0, 0
	var frame []byte
	for _, line := range lines(t, 5, 7702) {
		frame = append(frame, line...)
		if len(frame) >= 256<<10 {
			raw, packed = raw+len(frame), packed+len(enc.EncodeAll(frame, nil))
			frame = frame[:0]
		}
	}
	ratio := float64(raw) / float64(packed)
	t.Logf("256 KiB frames compress %.2f times", ratio)
	if ratio < 5.5 || ratio > 8 { // the real hour with the same encoder and frames: between 6 and 7
		t.Errorf("256 KiB frames compress %.2f times, want 5.5..8", ratio)
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	// Not parallel: allocations of other tests would be counted.
	g, buf := ghevents.New(1), make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(2000, func() { buf = g.Next(buf[:0]) }); n > 0.5 {
		t.Errorf("%.1f allocations an event", n)
	}
}

// How fast can one core make events?
func BenchmarkNext(b *testing.B) {
	g, buf, total := ghevents.New(1), make([]byte, 0, 64<<10), 0
	for b.Loop() {
		buf = g.Next(buf[:0])
		total += len(buf)
	}
	b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "MB/s")
}

// How fast can one core give real lines new ids?
func BenchmarkWithID(b *testing.B) {
	all, buf, total := lines(b, 1, 1000), make([]byte, 0, 64<<10), 0
	for i := 0; b.Loop(); i++ {
		line := all[i%len(all)]
		buf = ghevents.WithID(buf[:0], line, strconv.Itoa(i))
		total += len(line)
	}
	b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "MB/s")
}
