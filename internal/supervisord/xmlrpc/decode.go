package xmlrpc

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	// maxDepth bounds how deep arrays and structs nest; a call of Supervisor nests three deep.
	maxDepth = 32
	// maxValues bounds the values of one call, so that a small body cannot become a large tree.
	maxValues = 100_000
)

// Call is a method call.
type Call struct {
	Method string // may be empty: the caller decides what that means
	Params []any
}

// decoder reads one document.
type decoder struct {
	xml    *xml.Decoder
	values int
}

// Decode reads a methodCall. The reader's length is the caller's to bound.
func Decode(r io.Reader) (Call, error) {
	d := &decoder{xml: xml.NewDecoder(r)}
	d.xml.CharsetReader = func(charset string, input io.Reader) (io.Reader, error) {
		if strings.EqualFold(charset, "us-ascii") {
			return input, nil
		}
		return nil, fmt.Errorf("character set %q is not UTF-8", charset)
	}
	root, err := d.start()
	if err != nil {
		return Call{}, err
	}
	if root == nil || root.Name.Local != "methodCall" {
		return Call{}, errors.New("no methodCall")
	}
	var call Call
	for {
		el, err := d.start()
		if err != nil {
			return Call{}, err
		}
		if el == nil {
			break
		}
		switch el.Name.Local {
		case "methodName":
			name, err := d.text()
			if err != nil {
				return Call{}, err
			}
			call.Method = strings.TrimSpace(name)
		case "params":
			if call.Params, err = d.params(); err != nil {
				return Call{}, err
			}
		default:
			return Call{}, fmt.Errorf("unexpected <%s> in methodCall", el.Name.Local)
		}
	}
	return call, d.end()
}

// end checks that nothing but space and comments follows the root.
func (d *decoder) end() error {
	for {
		tok, err := d.xml.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			return fmt.Errorf("<%s> after the call", tok.Name.Local)
		case xml.CharData:
			if strings.TrimSpace(string(tok)) != "" {
				return errors.New("text after the call")
			}
		}
	}
}

// start returns the next element of the current one, or nil at its end.
func (d *decoder) start() (*xml.StartElement, error) {
	for {
		tok, err := d.xml.Token()
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			return &tok, nil
		case xml.EndElement:
			return nil, nil
		case xml.CharData:
			if strings.TrimSpace(string(tok)) != "" {
				return nil, fmt.Errorf("text %q between elements", clip(string(tok)))
			}
		}
	}
}

// text returns the text of the current element, which has no other in it.
func (d *decoder) text() (string, error) {
	var b strings.Builder
	for {
		tok, err := d.xml.Token()
		if err != nil {
			return "", err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			return "", fmt.Errorf("<%s> where text is expected", tok.Name.Local)
		case xml.EndElement:
			return b.String(), nil
		case xml.CharData:
			b.Write(tok)
		}
	}
}

func (d *decoder) params() ([]any, error) {
	params := []any{}
	for {
		el, err := d.start()
		if err != nil || el == nil {
			return params, err
		}
		if el.Name.Local != "param" {
			return nil, fmt.Errorf("<%s> in params", el.Name.Local)
		}
		v, err := d.only("value", 0)
		if err != nil {
			return nil, err
		}
		params = append(params, v)
	}
}

// only reads the one value that the current element holds, and its end.
func (d *decoder) only(name string, depth int) (any, error) {
	el, err := d.start()
	if err != nil {
		return nil, err
	}
	if el == nil || el.Name.Local != name {
		return nil, fmt.Errorf("no <%s>", name)
	}
	v, err := d.value(depth)
	if err != nil {
		return nil, err
	}
	if el, err = d.start(); err == nil && el != nil {
		err = fmt.Errorf("<%s> after a <%s>", el.Name.Local, name)
	}
	return v, err
}

// value reads what is inside a <value>, and its end. Without an element in it, it is a string.
func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("values nest more than %d deep", maxDepth)
	}
	if d.values++; d.values > maxValues {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	var b strings.Builder
	var v any
	typed := false
	for {
		tok, err := d.xml.Token()
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.CharData:
			b.Write(tok)
		case xml.StartElement:
			if typed {
				return nil, fmt.Errorf("<%s> is a second type of one value", tok.Name.Local)
			}
			typed = true
			if v, err = d.typed(tok.Name.Local, depth); err != nil {
				return nil, err
			}
		case xml.EndElement:
			if !typed {
				return b.String(), nil
			}
			if strings.TrimSpace(b.String()) != "" {
				return nil, fmt.Errorf("text %q beside a typed value", clip(b.String()))
			}
			return v, nil
		}
	}
}

func (d *decoder) typed(name string, depth int) (any, error) {
	switch name {
	case "array":
		return d.array(depth)
	case "struct":
		return d.members(depth)
	}
	text, err := d.text()
	if err != nil {
		return nil, err
	}
	switch name {
	case "string":
		return text, nil
	case "int", "i4", "i8":
		return strconv.Atoi(strings.TrimSpace(text))
	case "boolean":
		return strings.TrimSpace(text) == "1", nil
	case "double":
		return strconv.ParseFloat(strings.TrimSpace(text), 64)
	case "dateTime.iso8601":
		return time.Parse("20060102T15:04:05", strings.TrimSpace(text))
	case "base64":
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		return string(raw), err
	case "nil":
		return nil, nil
	default:
		return nil, fmt.Errorf("unknown type <%s>", name)
	}
}

func (d *decoder) array(depth int) ([]any, error) {
	list := []any{}
	el, err := d.start()
	if err != nil {
		return nil, err
	}
	if el == nil || el.Name.Local != "data" {
		return nil, errors.New("array without data")
	}
	for {
		el, err = d.start()
		if err != nil {
			return nil, err
		}
		if el == nil {
			break
		}
		if el.Name.Local != "value" {
			return nil, fmt.Errorf("<%s> in an array", el.Name.Local)
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if el, err = d.start(); err == nil && el != nil {
		err = fmt.Errorf("<%s> after the data of an array", el.Name.Local)
	}
	return list, err
}

func (d *decoder) members(depth int) (map[string]any, error) {
	m := map[string]any{}
	for {
		el, err := d.start()
		if err != nil || el == nil {
			return m, err
		}
		if el.Name.Local != "member" {
			return nil, fmt.Errorf("<%s> in a struct", el.Name.Local)
		}
		el, err = d.start()
		if err != nil {
			return nil, err
		}
		if el == nil || el.Name.Local != "name" {
			return nil, errors.New("member without a name")
		}
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		if m[name], err = d.only("value", depth+1); err != nil {
			return nil, err
		}
	}
}

func clip(s string) string {
	const most = 40
	if s = strings.TrimSpace(s); len(s) > most {
		return s[:most] + "…"
	}
	return s
}
