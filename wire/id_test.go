package wire_test

import (
	"testing"

	"github.com/hozo-dev/hozo/wire"
	"pgregory.net/rapid"
)

func TestEventIDSurvivesItsText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := wire.EventID{
			Stream: rapid.StringMatching(`[a-z][a-z0-9-]*(\.[a-z0-9-]+)*`).Draw(t, "stream"),
			Seq:    rapid.Uint64().Draw(t, "seq"),
			Index:  rapid.IntRange(0, 1<<31).Draw(t, "index"),
		}
		back, err := wire.ParseEventID(id.String())
		if err != nil || back != id {
			t.Fatalf("%v became %v, %v", id, back, err)
		}
	})
}

func TestParseEventIDRefusesWhatStringNeverWrites(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "events.raw", "events.raw:1", ":1:2", "events.raw:-1:2", "events.raw:1:-2", "events.raw:1:2:3",
		"events.raw:x:2", "events.raw:1:x", "events.raw:1:", "events.raw::1", "events.raw:18446744073709551616:0",
		"events.raw:+1:2", "events.raw:1:+2", "events.raw:01:2", "events.raw:1:02",
	} {
		if id, err := wire.ParseEventID(s); err == nil {
			t.Errorf("%q was read as %v", s, id)
		}
	}
}

// FuzzParseEventID: what is accepted is exactly what String writes, so one event has one name.
func FuzzParseEventID(f *testing.F) {
	f.Add("events.raw:17:3")
	f.Add("a:0:0")
	f.Add("a:+1:01")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := wire.ParseEventID(s)
		if err == nil && id.String() != s {
			t.Fatalf("%q was read as %v", s, id)
		}
	})
}
