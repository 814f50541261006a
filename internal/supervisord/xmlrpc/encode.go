package xmlrpc

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Fault is an answer that says why a call failed.
type Fault struct {
	Code   int
	String string
}

// Struct is the fault as a value: what a multicall has in the place of a result.
func (f *Fault) Struct() map[string]any {
	return map[string]any{"faultCode": f.Code, "faultString": f.String}
}

// Response writes a methodResponse with one value.
func Response(v any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n")
	if err := write(&b, v); err != nil {
		return nil, err
	}
	b.WriteString("</param>\n</params>\n</methodResponse>\n")
	return b.Bytes(), nil
}

// FaultResponse writes a methodResponse that is a fault.
func FaultResponse(f *Fault) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("<?xml version='1.0'?>\n<methodResponse>\n<fault>\n")
	if err := write(&b, f.Struct()); err != nil {
		return nil, err
	}
	b.WriteString("</fault>\n</methodResponse>\n")
	return b.Bytes(), nil
}

func write(b *bytes.Buffer, v any) error {
	b.WriteString("<value>")
	switch v := v.(type) {
	case bool:
		n := "0"
		if v {
			n = "1"
		}
		b.WriteString("<boolean>" + n + "</boolean>")
	case int:
		if v > math.MaxInt32 || v < math.MinInt32 {
			return fmt.Errorf("%d does not fit an XML-RPC int", v)
		}
		b.WriteString("<int>" + strconv.Itoa(v) + "</int>")
	case float64:
		b.WriteString("<double>" + strconv.FormatFloat(v, 'g', -1, 64) + "</double>")
	case string:
		b.WriteString("<string>")
		Escape(b, v)
		b.WriteString("</string>")
	case time.Time:
		b.WriteString("<dateTime.iso8601>" + v.Format("20060102T15:04:05") + "</dateTime.iso8601>")
	case []any:
		b.WriteString("<array><data>\n")
		for _, e := range v {
			if err := write(b, e); err != nil {
				return err
			}
		}
		b.WriteString("</data></array>")
	case map[string]any:
		b.WriteString("<struct>\n")
		for _, name := range slices.Sorted(maps.Keys(v)) {
			b.WriteString("<member>\n<name>")
			Escape(b, name)
			b.WriteString("</name>\n")
			if err := write(b, v[name]); err != nil {
				return err
			}
			b.WriteString("</member>\n")
		}
		b.WriteString("</struct>")
	default:
		return fmt.Errorf("a %T is no XML-RPC value", v)
	}
	b.WriteString("</value>\n")
	return nil
}

// Escape writes s as text of an element. What XML 1.0 cannot carry is left out; a carriage return, which a parser would
// turn into a line feed, is written as a reference.
func Escape(b *bytes.Buffer, s string) {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '\r':
			b.WriteString("&#13;")
		case r == utf8.RuneError && size <= 1:
			b.WriteRune(utf8.RuneError)
		case legal(r):
			b.WriteString(s[i : i+size])
		}
		i += size
	}
}

// legal says whether XML 1.0 allows a character (production 2, Char).
func legal(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000
}

// Legal is s as a client gets it: without what XML 1.0 cannot carry.
func Legal(s string) string {
	return strings.Map(func(r rune) rune {
		if legal(r) {
			return r
		}
		return -1
	}, s)
}
