package manifest

import (
	"fmt"
	"strings"
)

const (
	frameAround = 2   // lines shown before and after the one that is wrong
	frameWidth  = 110 // characters of a line; more would wrap in a terminal of 120
)

// frame shows the lines around a position with a caret under it:
//
//	13 |     run: ./web
//	14 |     scael: 2
//	   |     ^
func frame(lines []string, at position) string {
	if at.line < 1 || at.line > len(lines) {
		return ""
	}
	first, last := max(1, at.line-frameAround), min(len(lines), at.line+frameAround)
	for last > at.line && strings.TrimSpace(lines[last-1]) == "" {
		last-- // blank lines at the end show nothing
	}
	width := len(fmt.Sprint(last))
	// A long line is cut to a window around the caret; its neighbours are cut the same way, so columns stay aligned.
	skip := max(0, at.col-1-frameWidth*3/4)
	var b strings.Builder
	for n := first; n <= last; n++ {
		fmt.Fprintf(&b, "%*d | %s\n", width, n, window(lines[n-1], skip))
		if n == at.line {
			fmt.Fprintf(&b, "%*s | %s^\n", width, "", strings.Repeat(" ", max(0, at.col-1-skip)))
		}
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

// window returns frameWidth characters of line after the first skip; characters that a terminal would act on become
// blanks.
func window(line string, skip int) string {
	var b strings.Builder
	n := 0
	for _, r := range line {
		n++
		if n <= skip {
			continue
		}
		if n > skip+frameWidth {
			break
		}
		if r < ' ' || r == 0x7f || (0x80 <= r && r < 0xa0) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " ")
}
