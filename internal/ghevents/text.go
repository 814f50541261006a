package ghevents

import "strconv"

// words are what bodies, titles, names and branches are made of. Common words come first and are drawn more often, so
// that text compresses as English does.
var words = [...]string{
	"the", "to", "a", "of", "and", "in", "is", "for", "this", "it", "on", "that", "with", "be", "not", "as", "add", "fix",
	"from", "update", "if", "we", "you", "test", "file", "are", "use", "when", "can", "should", "by", "or", "an", "have",
	"remove", "but", "code", "new", "all", "more", "error", "so", "version", "will", "at", "build", "now", "change", "now",
	"build", "default", "merge", "branch", "readme", "support", "was", "does", "just", "there", "need", "make", "some", "only",
	"which", "issue", "like", "has", "get", "set", "one", "no", "do", "what", "work", "works", "using", "also", "would", "page",
	"data", "line", "link", "time", "list", "user", "name", "server", "client", "config", "option", "because", "missing",
	"value", "string", "function", "method", "class", "object", "object", "return", "call", "type", "message", "request",
	"response", "header", "body", "token", "login", "password", "session", "cache", "queue", "worker", "thread", "process",
	"memory", "leak", "crash", "panic", "trace", "debug", "release", "install", "package", "module", "import", "export",
	"library", "framework", "plugin", "template", "style", "layout", "button", "image", "icon", "font", "color", "window",
	"screen", "mobile", "browser", "script", "compile", "compiler", "linker", "parser", "lexer", "syntax", "grammar",
	"document", "documentation", "example", "tutorial", "guide", "typo", "spelling", "cleanup", "refactor", "rename",
	"deprecated", "legacy", "upgrade", "downgrade", "migrate", "migration", "database", "table", "column", "index", "query",
	"schema", "driver", "connection", "timeout", "retry", "backoff", "network", "socket", "packet", "proxy", "gateway",
	"router", "route", "handler", "middleware", "filter", "stream", "buffer", "encode", "decode", "compress", "archive",
	"backup", "restore", "snapshot", "monitor", "metric", "logger", "logging", "alert", "report", "chart", "graph", "node",
	"edge", "tree", "leaf", "root", "branch", "commit", "push", "pull", "fetch", "clone", "rebase", "squash", "revert",
	"deploy", "deployment", "docker", "container", "cluster", "cloud", "storage", "bucket", "volume", "mount", "kernel",
	"device", "sensor", "camera", "audio", "video", "player", "game", "level", "sprite", "texture", "shader", "vector",
	"matrix", "number", "float", "integer", "boolean", "array", "slice", "hash", "pointer", "reference", "iterator",
	"generator", "closure", "lambda", "macro", "trait", "interface", "abstract", "virtual", "static", "dynamic", "runtime",
	"async", "await", "promise", "future", "channel", "mutex", "atomic", "barrier", "signal", "event", "listener", "observer",
	"widget", "canvas", "render", "animation", "scroll", "resize", "focus", "hover", "click", "drag", "keyboard", "shortcut",
	"locale", "translation", "unicode", "emoji", "charset", "timezone", "calendar", "schedule", "reminder", "account",
	"profile", "avatar", "comment", "review", "approve", "reject", "assign", "label", "milestone", "roadmap", "sprint",
	"backlog", "ticket", "feature", "bug", "regression", "benchmark", "performance", "latency", "throughput", "security",
	"vulnerability", "certificate", "signature", "encrypt", "decrypt", "random", "seed", "entropy", "license", "copyright",
	"probably", "maybe", "really", "actually", "currently", "instead", "anyway", "please", "thanks", "sorry", "great",
	"looks", "good", "better", "best", "wrong", "broken", "weird", "simple", "complex", "easy", "hard", "fast", "slow",
}

// word draws one, the first ones most often.
func (g *Generator) word() string {
	r := g.rng.Uint64()
	a, b := int(r&0xffff)*len(words)>>16, int(r>>16&0xffff)*len(words)>>16
	if r>>32&3 == 0 {
		return words[a]
	}
	return words[a*b/len(words)]
}

// text appends about n bytes of prose, JSON-escaped, without quotes. Lines break as in comments typed in a browser.
func (g *Generator) text(dst []byte, n int) []byte {
	for end := len(dst) + n; len(dst) < end; {
		switch r := g.below(256); {
		case r < 8:
			dst = append(dst, `\r\n`...)
		case r < 10:
			dst = append(dst, `\r\n\r\n- `...)
		case r < 14:
			dst = append(dst, "`"...)
			dst = append(dst, g.word()...)
			dst = append(dst, '_')
			dst = append(dst, g.word()...)
			dst = append(dst, "` "...)
		case r < 17:
			dst = append(dst, `\"`...)
			dst = append(dst, g.word()...)
			dst = append(dst, `\" `...)
		case r < 18:
			dst = append(dst, "… "...)
		case r < 22:
			dst = strconv.AppendInt(dst, int64(g.below(100_000)), 10)
			dst = append(dst, ' ')
		case r < 24:
			dst = append(dst, "https://github.com/"...)
			dst = append(dst, g.repo().full...)
			dst = append(dst, "/blob/"...)
			dst = g.sha(dst)
			dst = append(dst, ' ')
		default:
			dst = append(dst, g.word()...)
			if r > 236 {
				dst = append(dst, '.')
			}
			dst = append(dst, ' ')
		}
	}
	return dst
}

// title appends about n bytes of plain words, the first with a capital letter.
func (g *Generator) title(dst []byte, n int) []byte {
	start := len(dst)
	for end := start + n; len(dst) < end; {
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = append(dst, g.word()...)
	}
	if len(dst) > start {
		dst[start] -= 'a' - 'A' // every word is lower-case ASCII
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// sha appends forty hexadecimal digits.
func (g *Generator) sha(dst []byte) []byte {
	for range 5 {
		for r, i := g.rng.Uint64(), 0; i < 8; i++ {
			dst = append(dst, hexDigits[r&15])
			r >>= 4
		}
	}
	return dst
}

// branch appends the name of a topic branch.
func (g *Generator) branch(dst []byte) []byte {
	dst = append(dst, g.word()...)
	dst = append(dst, '-')
	return append(dst, g.word()...)
}

// nullOrTime appends null or the present time.
func (g *Generator) nullOrTime(dst []byte, isNull bool) []byte {
	if isNull {
		return append(dst, "null"...)
	}
	return append(dst, g.now...)
}
