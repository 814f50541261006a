package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
)

// maxMistakes bounds the faults of one Parse: more help nobody, and a hostile file could make a hundred thousand.
const maxMistakes = 64

// position is a place in the file; lines and columns count from 1, columns count characters.
type position struct{ line, col int }

// mistake is one thing that is wrong in the file.
type mistake struct {
	at              position
	code, what, fix string
}

// report gathers every mistake of a file.
type report struct {
	path  string
	lines []string
	found []mistake
}

func newReport(src, path string) *report {
	lines := strings.Split(src, "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	return &report{path: path, lines: lines}
}

// add notes a mistake; code goes without the room's name.
func (r *report) add(at position, code, what, fix string) {
	r.found = append(r.found, mistake{at, "manifest/" + code, what, fix})
}

// err joins the mistakes in the order of the file; the same mistake found in two ways counts once.
func (r *report) err() error {
	slices.SortStableFunc(r.found, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(a.at.line, b.at.line), cmp.Compare(a.at.col, b.at.col), cmp.Compare(a.code, b.code), cmp.Compare(a.what, b.what))
	})
	// A mistake under an anchor is found under each of its aliases, in other words.
	found := slices.CompactFunc(r.found, func(a, b mistake) bool { return a.at == b.at && a.code == b.code && a.fix == b.fix })
	var all []error
	for i, m := range found {
		if i == maxMistakes {
			all = append(all, &fault.Error{Code: "manifest/more", Kind: fault.Misuse, Where: r.path, What: fmt.Sprintf("%d more mistakes", len(found)-i), Fix: "correct the ones above first"})
			break
		}
		all = append(all, &fault.Error{
			Code: m.code, Kind: fault.Misuse, What: m.what, Fix: m.fix, Source: frame(r.lines, m.at),
			Where: fmt.Sprintf("%s:%d:%d", r.path, m.at.line, m.at.col),
		})
	}
	return errors.Join(all...)
}
