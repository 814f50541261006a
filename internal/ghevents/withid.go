package ghevents

// WithID appends line to dst with the value of its top-level "id" replaced by the string id, and returns the extended
// slice. A line without that key gets it as its first; a line that is no JSON object is appended as it is. The id must
// need no JSON escaping. Line must be valid JSON, with or without a newline at its end, for the result to be.
func WithID(dst, line []byte, id string) []byte {
	open := skipSpace(line, 0)
	if open == len(line) || line[open] != '{' {
		return append(dst, line...)
	}
	start, end, found := topLevelID(line, open+1)
	if !found {
		dst = append(dst, line[:open+1]...)
		dst = append(dst, `"id":"`...)
		dst = append(dst, id...)
		dst = append(dst, '"')
		if first := skipSpace(line, open+1); first < len(line) && line[first] != '}' {
			dst = append(dst, ',')
		}
		return append(dst, line[open+1:]...)
	}
	dst = append(dst, line[:start]...)
	dst = append(dst, '"')
	dst = append(dst, id...)
	dst = append(dst, '"')
	return append(dst, line[end:]...)
}

// topLevelID finds the value of the first key "id" of the object whose content begins at i.
func topLevelID(line []byte, i int) (start, end int, found bool) {
	for i < len(line) {
		i = skipSpace(line, i)
		if i == len(line) || line[i] != '"' {
			return 0, 0, false
		}
		keyEnd := skipString(line, i)
		isID := string(line[i:keyEnd]) == `"id"`
		i = skipSpace(line, keyEnd)
		if i == len(line) || line[i] != ':' {
			return 0, 0, false
		}
		start = skipSpace(line, i+1)
		end = skipValue(line, start)
		if isID {
			return start, end, end > start
		}
		i = skipSpace(line, end)
		if i == len(line) || line[i] != ',' {
			return 0, 0, false
		}
		i++
	}
	return 0, 0, false
}

func skipSpace(line []byte, i int) int {
	for i < len(line) && (line[i] == ' ' || line[i] == '\t' || line[i] == '\n' || line[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the place after the string that begins at i.
func skipString(line []byte, i int) int {
	for i++; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(line)
}

// skipValue returns the place after the value that begins at i.
func skipValue(line []byte, i int) int {
	depth := 0
	for i < len(line) {
		switch line[i] {
		case '"':
			i = skipString(line, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // the end of the object around a bare value
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return len(line)
}
