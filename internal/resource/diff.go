package resource

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
)

// maxDiff bounds each side of a diff: beyond it nobody reads one.
const maxDiff = 64 << 10

// unified compares two texts line by line. is is false where there is no text to show: bytes, or too many.
func unified(name string, old, new []byte, created bool) (string, bool) {
	if len(new) > maxDiff || old == nil && !created || !isText(old) || !isText(new) {
		return "", false
	}
	before := name
	if created {
		before = "/dev/null"
	}
	text := string(diff.Diff(before, old, name, new))
	// Its first line is a command line, which says nothing that the next two do not.
	_, text, _ = strings.Cut(text, "\n")
	return text, true
}

func isText(data []byte) bool { return utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 }
