package manifest

import (
	"fmt"
	"strings"
)

// nameRule is how names of one sort are spelled. The pattern says the same as ok does, for the JSON Schema; a test holds
// the two together.
type nameRule struct {
	noun    string
	pattern string
	ok      func(string) bool
	fix     string
}

// maxName bounds a token of a name and maxSubject a whole subject: they become parts of file names (255 bytes) and of
// subjects (NATS's default limit for a control line is 4096 bytes).
const (
	maxName    = 48
	maxSubject = 128
)

const (
	patternName    = `[a-z][a-z0-9-]{0,47}`
	patternDotted  = `^` + patternName + `(\.` + patternName + `)*$`
	patternSubject = `^(` + patternName + `|\*)(\.(` + patternName + `|\*))*(\.>)?$`
)

func plainName() nameRule {
	return nameRule{"name", `^` + patternName + `$`, isName, "use a lower-case letter, then letters, digits and -; at most 48 characters"}
}

func dottedName() nameRule {
	return nameRule{"name", patternDotted, isDotted, "join parts with dots, each a lower-case letter, then letters, digits and -"}
}

func subjectName() nameRule {
	return nameRule{"subject", patternSubject, isSubject, "join parts with dots, each a lower-case letter, then letters, digits and -; * stands for one part, a final > for the rest"}
}

// identifier is a name of an environment variable, a table or a column. 63 is PostgreSQL's limit, kept for every database.
func identifier(noun string) nameRule {
	return nameRule{noun, `^[A-Za-z_][A-Za-z0-9_]{0,62}$`, isIdentifier, "use a letter or _, then letters, digits and _; at most 63 characters"}
}

func isName(s string) bool {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}

func isDotted(s string) bool {
	if len(s) > maxSubject {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !isName(part) {
			return false
		}
	}
	return true
}

func isSubject(s string) bool {
	if len(s) > maxSubject || s == ">" {
		return false
	}
	parts := strings.Split(s, ".")
	for i, part := range parts {
		if part != "*" && (part != ">" || i != len(parts)-1) && !isName(part) {
			return false
		}
	}
	return true
}

func isIdentifier(s string) bool {
	if s == "" || len(s) > 63 || '0' <= s[0] && s[0] <= '9' {
		return false
	}
	for _, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// checkName reports a name that breaks its rule.
func (r *report) checkName(rule nameRule, name string, at position) bool {
	if rule.ok(name) {
		return true
	}
	fix := rule.fix
	if better := strings.ReplaceAll(strings.ToLower(name), "_", "-"); better != name && rule.ok(better) {
		fix = fmt.Sprintf("write %s", better)
	}
	r.add(at, "bad-name", fmt.Sprintf("%q is not a %s", short(name), rule.noun), fix)
	return false
}
