package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// maxSuggestText bounds the words that are compared: the distance takes the product of their lengths.
const maxSuggestText = 64

// closest returns the candidate that word was probably meant to be, or "".
func closest(word string, candidates []string) string {
	if len(word) > maxSuggestText {
		return ""
	}
	best, bestDistance := "", 3 // two slips still point at one word; three point at many
	for _, c := range candidates {
		if len(c) > maxSuggestText {
			continue
		}
		// A short word is near everything: "a" is one slip from "b".
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance && d <= len(c)/2 {
			best, bestDistance = c, d
		}
	}
	return best
}

// orKnown proposes the closest candidate as a fix, or lists them all.
func orKnown(word string, candidates []string, noun string) string {
	if c := closest(word, candidates); c != "" {
		return fmt.Sprintf("did you mean %q?", c)
	}
	if len(candidates) == 0 {
		return "declare " + noun + " first"
	}
	sorted := slices.Sorted(slices.Values(candidates))
	const most = 24 // beyond it a list is no help to read
	if len(sorted) > most {
		sorted = append(sorted[:most], "…")
	}
	return "known: " + strings.Join(sorted, ", ")
}

// distance is the number of insertions, deletions, substitutions and swaps of neighbours between a and b
// (Damerau–Levenshtein, optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}
