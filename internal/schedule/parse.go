package schedule

import (
	"fmt"
	"strconv"
	"strings"
)

// SyntaxError says what is wrong with an expression.
type SyntaxError struct {
	Offset int // in characters, of the field that is wrong
	Reason string
}

func (e *SyntaxError) Error() string { return e.Reason }

// maxExpression bounds an expression: the longest that says anything names each value of each field, some 700 characters.
const maxExpression = 1000

// field is one place of an expression.
type field struct {
	noun        string
	least, most int
	day         bool     // ? means *, as Quartz has it
	names       []string // of least, least+1, …
}

func places() [6]field {
	return [6]field{
		{noun: "second", most: 59},
		{noun: "minute", most: 59},
		{noun: "hour", most: 23},
		{noun: "day of the month", least: 1, most: 31, day: true},
		{noun: "month", least: 1, most: 12, names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
		{noun: "day of the week", most: 7, day: true, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
	}
}

func shorthand(name string) (expression string, known bool) {
	switch name {
	case "@yearly", "@annually":
		return "0 0 0 1 1 *", true
	case "@monthly":
		return "0 0 0 1 * *", true
	case "@weekly":
		return "0 0 0 * * 0", true
	case "@daily", "@midnight":
		return "0 0 0 * * *", true
	case "@hourly":
		return "0 0 * * * *", true
	}
	return "", false
}

// parse reads five fields (minute, hour, day, month, weekday), six with seconds before them, or a shorthand.
func parse(expression string) (fields, error) {
	if len(expression) > maxExpression {
		return fields{}, &SyntaxError{0, fmt.Sprintf("is longer than %d characters", maxExpression)}
	}
	words, offsets := split(expression)
	if len(words) == 1 && strings.HasPrefix(words[0], "@") {
		full, known := shorthand(strings.ToLower(words[0]))
		if !known {
			return fields{}, &SyntaxError{offsets[0], fmt.Sprintf("%q is none of @hourly, @daily, @weekly, @monthly, @yearly", words[0])}
		}
		words, offsets = strings.Fields(full), make([]int, 6)
	}
	switch len(words) {
	case 5:
		words, offsets = append([]string{"0"}, words...), append([]int{0}, offsets...)
	case 6:
	default:
		return fields{}, &SyntaxError{0, fmt.Sprintf("has %d fields, not 5 (minute hour day month weekday) or 6 (second first)", len(words))}
	}
	var sets [6]uint64
	for i, place := range places() {
		set, err := place.parse(words[i])
		if err != nil {
			return fields{}, &SyntaxError{offsets[i], fmt.Sprintf("%s %q: %s", place.noun, words[i], err)}
		}
		sets[i] = set
	}
	f := fields{second: sets[0], minute: sets[1], hour: sets[2], day: sets[3], month: sets[4], weekday: sets[5]}
	f.weekday |= f.weekday >> 7 & 1 // 7 is Sunday as well
	f.anyDay, f.anyWeekday = open(words[3]), open(words[5])
	return f, nil
}

// open says whether a field does not restrict the day by itself.
func open(word string) bool { return strings.HasPrefix(word, "*") || word == "?" }

// split cuts at blanks and returns where each word begins, in characters.
func split(s string) (words []string, offsets []int) {
	begin, count := -1, 0
	var word strings.Builder
	for _, r := range s + " " {
		switch blank := r == ' ' || r == '\t'; {
		case blank && begin >= 0:
			words, offsets, begin = append(words, word.String()), append(offsets, begin), -1
			word.Reset()
		case !blank:
			if begin < 0 {
				begin = count
			}
			word.WriteRune(r)
		}
		count++
	}
	return words, offsets
}

// parse reads a list of ranges, each with an optional step: "1-5,30", "*/15", "mon-fri".
func (p field) parse(word string) (uint64, error) {
	var set uint64
	for part := range strings.SplitSeq(word, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			n, ok := number(stepText)
			if !ok || n == 0 || n > p.most {
				return 0, fmt.Errorf("%q is no step from 1 to %d", stepText, p.most)
			}
			step = n
		}
		from, to, err := p.span(span, stepped)
		if err != nil {
			return 0, err
		}
		for n := from; n <= to; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

func (p field) span(text string, stepped bool) (from, to int, err error) {
	if text == "*" || text == "?" && p.day {
		return p.least, p.most, nil
	}
	first, last, ranged := strings.Cut(text, "-")
	if from, err = p.value(first); err != nil {
		return 0, 0, err
	}
	switch {
	case ranged:
		if to, err = p.value(last); err != nil {
			return 0, 0, err
		}
		if p.most == 7 && to == 0 && from > 0 {
			to = 7 // sat-sun
		}
		if to < from {
			return 0, 0, fmt.Errorf("the range %q goes backwards", text)
		}
	case stepped:
		to = p.most // 10/15 is 10-59/15
	default:
		to = from
	}
	return from, to, nil
}

func (p field) value(text string) (int, error) {
	for i, name := range p.names {
		if strings.EqualFold(text, name) {
			return p.least + i, nil
		}
	}
	n, ok := number(text)
	if !ok || n < p.least || n > p.most {
		return 0, fmt.Errorf("%q is not from %d to %d", text, p.least, p.most)
	}
	return n, nil
}

// number reads digits alone: strconv takes signs as well.
func number(text string) (int, bool) {
	if text == "" || len(text) > 3 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}
