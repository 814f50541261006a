package wire

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Headers of a CloudEvent in binary mode, https://github.com/cloudevents/spec: the attributes are headers and the data
// is the message. Bare messages carry them: events of streams without frames, live events, requests, dead letters. The
// events of a frame share the headers of one message, so theirs are made from their names when they are read.
const (
	HeaderCEVersion = "ce-specversion"
	HeaderCEID      = "ce-id"
	HeaderCESource  = "ce-source"
	HeaderCEType    = "ce-type"
	HeaderCETime    = "ce-time"

	HeaderContentType = "Content-Type" // of the data: the attribute datacontenttype
)

// CloudEvent is the attributes of an event that every CloudEvent has.
type CloudEvent struct {
	ID          string // unique within Source
	Source      string // a URI reference: /project/service
	Type        string
	Time        time.Time // zero when it is not known
	ContentType string    // of the data; empty when it is not stated
}

// Put writes the attributes into a message's headers.
func (e CloudEvent) Put(h map[string][]string) {
	h[HeaderCEVersion] = []string{"1.0"}
	h[HeaderCEID] = []string{escapeHeader(e.ID)}
	h[HeaderCESource] = []string{escapeHeader(e.Source)}
	h[HeaderCEType] = []string{escapeHeader(e.Type)}
	if !e.Time.IsZero() {
		h[HeaderCETime] = []string{e.Time.UTC().Format(time.RFC3339Nano)}
	}
	if e.ContentType != "" {
		h[HeaderContentType] = []string{e.ContentType}
	}
}

// CloudEventOf reads the attributes from a message's headers; ok is false when the message is no CloudEvent. Attributes
// that cannot be read are left empty.
func CloudEventOf(h map[string][]string) (e CloudEvent, ok bool) {
	first := func(name string) string {
		if values := h[name]; len(values) > 0 {
			return unescapeHeader(values[0])
		}
		return ""
	}
	if len(h) == 0 || first(HeaderCEVersion) == "" || first(HeaderCEID) == "" {
		return CloudEvent{}, false
	}
	e = CloudEvent{ID: first(HeaderCEID), Source: first(HeaderCESource), Type: first(HeaderCEType), ContentType: ContentType(h)}
	if at, err := time.Parse(time.RFC3339Nano, first(HeaderCETime)); err == nil {
		e.Time = at
	}
	return e, true
}

// ContentType returns the content type that a message's headers state, or "". Clients differ in how they spell the name.
func ContentType(h map[string][]string) string {
	for _, name := range []string{HeaderContentType, "content-type"} {
		if values := h[name]; len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// Stays reports whether a header belongs to the event or the task and so stays with it when it is parked, put aside and
// sent back.
func Stays(name string) bool {
	return strings.HasPrefix(name, "ce-") || strings.EqualFold(name, HeaderContentType) ||
		name == HeaderTraceParent || name == HeaderTraceState || name == HeaderKey || name == HeaderFlow || name == HeaderFlowError
}

// escapeHeader writes what is no printable ASCII, and space, double quote and percent sign, as the specification's HTTP
// binding does.
func escapeHeader(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && !escapes(s[i])
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if escapes(s[i]) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func escapes(c byte) bool { return c <= ' ' || c > '~' || c == '"' || c == '%' }

// unescapeHeader is the way back. What is not written that way stays as it is.
func unescapeHeader(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	if !utf8.ValidString(b.String()) {
		return s
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
