package wire

import (
	"slices"
	"strings"
)

// Line is the line of the manifest that would give the service one more word under key: "publishes: [orders, exports]",
// the words that it has already included. Keys are publishes, consumes, watches, serves, calls, handles and enqueues.
func (g Grant) Line(key, word string) string {
	var words []string
	switch key {
	case "publishes":
		for _, r := range g.Publish {
			if r.Subject != word+".in.*" && !slices.ContainsFunc(words, func(have string) bool { return r.Subject == have+".in.*" }) {
				words = append(words, r.Subject)
			}
		}
		words = append(words, g.Live...)
	case "consumes":
		for _, s := range g.Consumes {
			switch {
			case strings.HasPrefix(s.Stream, "hozo."):
			case len(s.Subjects) == 0:
				words = append(words, s.Stream)
			default:
				words = append(words, s.Subjects...)
			}
		}
	case "watches":
		words = slices.Clone(g.Watches)
	case "serves":
		words = slices.Clone(g.Serves)
	case "calls":
		words = slices.Clone(g.Calls)
	case "handles":
		words = slices.Clone(g.Handles)
	case "enqueues":
		words = slices.Clone(g.Enqueues)
	}
	if !slices.Contains(words, word) {
		words = append(words, word)
	}
	for i, w := range words {
		if strings.HasPrefix(w, "*") || w == ">" { // YAML would take it for an alias, or a text block
			words[i] = `"` + w + `"`
		}
	}
	return key + ": [" + strings.Join(words, ", ") + "]"
}

// Fix says what a person does so that the service may use word: which line of the manifest, and where.
func (g Grant) Fix(key, word string) string {
	at := "services." + g.Service
	if g.Declared != "" {
		at += " (" + g.Declared + ")"
	}
	return "write " + g.Line(key, word) + " under " + at + ", then hozo apply"
}
