package wire_test

import (
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/wire"
	"pgregory.net/rapid"
)

func TestCovers(t *testing.T) {
	t.Parallel()
	cases := []struct {
		pattern, sub string
		want         bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{"a.>", "a", false},
		{"a.>", "a.>", true},
		{"a.>", "a.*", true},
		{"a.>", "a.b.>", true},
		{"a.>", ">", false},
		{">", "a", true},
		{">", "a.>", true},
		{">", ">", true},
		{"*", "a", true},
		{"*", "a.b", false},
		{"*", ">", false},
		{"*", "*", true},
		{"a.*", "a.b", true},
		{"a.*", "a.>", false},
		{"a.*", "a.*", true},
		{"a.b", "a.*", false},
		{"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.d", false},
		{"a.*.>", "a.b.c.d", true},
		{"a.*.>", "a.b", false},
		{"*.b", "a.b", true},
	}
	for _, c := range cases {
		if got := wire.Covers(c.pattern, c.sub); got != c.want {
			t.Errorf("Covers(%q, %q) = %v, want %v", c.pattern, c.sub, got, c.want)
		}
	}
}

// TestCoversAgreesWithMatching compares with the plain meaning: every literal subject that sub matches, pattern matches
// as well.
func TestCoversAgreesWithMatching(t *testing.T) {
	t.Parallel()
	tokens := []string{"a", "b"}
	var literals []string
	for _, one := range tokens {
		literals = append(literals, one)
		for _, two := range tokens {
			literals = append(literals, one+"."+two)
			for _, three := range tokens {
				literals = append(literals, one+"."+two+"."+three)
			}
		}
	}
	subject := rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*"}), 1, 3).Draw(t, "tokens")
		if len(parts) < 3 && rapid.Bool().Draw(t, "tail") {
			parts = append(parts, ">")
		}
		return strings.Join(parts, ".")
	})
	rapid.Check(t, func(t *rapid.T) {
		pattern, sub := subject.Draw(t, "pattern"), subject.Draw(t, "sub")
		if !wire.Covers(pattern, sub) {
			return
		}
		for _, l := range literals {
			if wire.Covers(sub, l) && !wire.Covers(pattern, l) {
				t.Fatalf("Covers(%q, %q), but %q matches only the second", pattern, sub, l)
			}
		}
	})
}

func TestSubjectsOfOneEvent(t *testing.T) {
	t.Parallel()
	id := wire.EventID{Stream: "events.raw", Seq: 17, Index: 3}
	for got, want := range map[string]string{
		wire.DeadSubject("mail", id):  "hozo.dlq.mail.events_raw.17.3",
		wire.RetrySubject("mail", id): "hozo.retry.mail.events_raw.17.3",
		wire.StreamName("events.raw"): "events_raw",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, s := range wire.StreamSubjects("events.raw") {
		if !wire.Covers(s, "events.raw") && !wire.Covers(s, "events.raw.push.eu") {
			t.Errorf("%q stores neither the stream's name nor what is below", s)
		}
	}
}
