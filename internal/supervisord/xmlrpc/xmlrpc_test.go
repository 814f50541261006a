package xmlrpc_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDecodeReadsEveryType(t *testing.T) {
	t.Parallel()
	const doc = `<?xml version='1.0'?>
<methodCall> <!-- a comment -->
<methodName>system.multicall</methodName>
<params>
<param><value>plain &lt;text&gt;</value></param>
<param><value><string> kept </string></value></param>
<param><value><int>-7</int></value></param>
<param><value><i4>8</i4></value></param>
<param><value><boolean>1</boolean></value></param>
<param><value><double>1.5</double></value></param>
<param><value><base64>aGVs bG8=</base64></value></param>
<param><value><array><data><value><int>1</int></value><value><array><data/></array></value></data></array></value></param>
<param><value><struct><member><name>a</name><value><boolean>0</boolean></value></member></struct></value></param>
</params>
</methodCall>`
	call, err := xmlrpc.Decode(strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	want := xmlrpc.Call{Method: "system.multicall", Params: []any{
		"plain <text>", " kept ", -7, 8, true, 1.5, "hello", []any{1, []any{}}, map[string]any{"a": false},
	}}
	if !reflect.DeepEqual(call, want) {
		t.Errorf("read %#v, want %#v", call, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	call := func(params string) string {
		return "<methodCall><methodName>m</methodName><params>" + params + "</params></methodCall>"
	}
	deep := strings.Repeat("<value><array><data>", 50) + strings.Repeat("</data></array></value>", 50)
	for name, doc := range map[string]string{
		"nothing":        "",
		"text":           "abc",
		"another root":   "<a/>",
		"half":           "<methodCall><methodName>m</methodName>",
		"bad int":        call("<param><value><int>x</int></value></param>"),
		"bad base64":     call("<param><value><base64>!</base64></value></param>"),
		"unknown type":   call("<param><value><what>1</what></value></param>"),
		"two types":      call("<param><value><int>1</int><int>2</int></value></param>"),
		"two values":     call("<param><value>1</value><value>2</value></param>"),
		"no value":       call("<param></param>"),
		"too deep":       call("<param>" + deep + "</param>"),
		"after the call": call("") + "<more/>",
		"entity":         `<!DOCTYPE x [<!ENTITY e "boom">]>` + call("<param><value>&e;</value></param>"),
		"charset":        `<?xml version="1.0" encoding="utf-16"?>` + call(""),
	} {
		if got, err := xmlrpc.Decode(strings.NewReader(doc)); err == nil {
			t.Errorf("%s: read as %#v", name, got)
		}
	}
}

func TestResponseIsReadableWhateverTheTextHolds(t *testing.T) {
	t.Parallel()
	const raw = "a\x00b\x1b[31m\xff<&>\r\n\ufffe wörld"
	for _, v := range []any{raw, []any{raw, map[string]any{raw: raw}}} {
		doc, err := xmlrpc.Response(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := parses(doc); err != nil {
			t.Errorf("%q: %v", doc, err)
		}
	}
	doc, err := xmlrpc.Response(raw)
	if err != nil {
		t.Fatal(err)
	}
	if want := "ab[31m\ufffd&lt;&amp;&gt;&#13;\n wörld"; !bytes.Contains(doc, []byte(want)) {
		t.Errorf("%q does not hold %q", doc, want)
	}
}

func TestResponseRefusesWhatIsNoValue(t *testing.T) {
	t.Parallel()
	for _, v := range []any{nil, int64(1), 1 << 40, struct{}{}, []any{nil}} {
		if doc, err := xmlrpc.Response(v); err == nil {
			t.Errorf("%#v was written as %q", v, doc)
		}
	}
}

// FuzzDecode asks that whatever is read can be written, and is then well-formed.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("<methodCall><methodName>a.b</methodName><params><param><value><int>1</int></value></param></params></methodCall>"))
	f.Add([]byte("<methodCall><methodName>a</methodName><params><param><value>x\x01</value></param></params></methodCall>"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		call, err := xmlrpc.Decode(bytes.NewReader(doc))
		if err != nil {
			return
		}
		out, err := xmlrpc.Response([]any{call.Method})
		if err == nil {
			err = parses(out)
		}
		if err != nil {
			t.Fatalf("%q: %v", call.Method, err)
		}
		if out, err := xmlrpc.Response(call.Params); err == nil {
			if err := parses(out); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
		}
	})
}

func parses(doc []byte) error {
	d := xml.NewDecoder(bytes.NewReader(doc))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
