package wire_test

import (
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/wire"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceParentsAsTheStandardHasThem(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		parent:                         parent,
		parent[:53] + "00":             parent[:53] + "00",
		parent[:53] + "ff":             parent, // unknown flags are not passed on
		"cc" + parent[2:] + "-what.is": parent, // a later version
		"cc" + parent[2:]:              parent,
	} {
		got, ok := wire.ParseTrace(header, "")
		if !ok || got.String() != want {
			t.Errorf("%s: %s, %v", header, got, ok)
		}
	}
	for _, header := range []string{
		"", "ff" + parent[2:], strings.ToUpper(parent), parent + "-more", "cc" + parent[2:] + "more", parent[:54],
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
		strings.ReplaceAll(parent, "-", "_"), parent[:53] + "0g",
	} {
		if got, ok := wire.ParseTrace(header, ""); ok {
			t.Errorf("%q is read as %s", header, got)
		}
	}
	one := wire.NewTrace()
	next := one.Child()
	if !one.Valid() || !one.Sampled || next.TraceID() != one.TraceID() || next.SpanID() == one.SpanID() {
		t.Errorf("%s has the child %s", one, next)
	}
}

func FuzzTrace(f *testing.F) {
	f.Add(parent, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "3-7 "+parent+" a=b, c=d")
	f.Add("cc"+parent[2:]+"-x", strings.Repeat("x", 600), "7-3 "+parent)
	f.Add("", "\n", "-")
	f.Fuzz(func(t *testing.T, header, state, run string) {
		if trace, ok := wire.ParseTrace(header, state); ok {
			h := map[string][]string{}
			trace.Put(h)
			if again, ok := wire.TraceOf(h); !ok || again != trace {
				t.Errorf("%q, %q: %+v is read back as %+v", header, state, trace, again)
			}
			r := wire.TraceRun{First: 0, Last: 16383, Trace: trace}
			if again, ok := wire.ParseTraceRun(r.String()); !ok || again != r {
				t.Errorf("%q: %+v is read back as %+v", r, r, again)
			}
		}
		if r, ok := wire.ParseTraceRun(run); ok {
			if r.First > r.Last || !r.Trace.Valid() {
				t.Errorf("%q is read as %+v", run, r)
			}
			if again, ok := wire.ParseTraceRun(r.String()); !ok || again != r {
				t.Errorf("%q: %+v is read back as %+v", run, r, again)
			}
		}
	})
}
