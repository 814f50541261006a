package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

func FuzzCloudEventHeaders(f *testing.F) {
	f.Add("events:1:0", "/shop/price", "jp.co.example.注文", "application/json")
	f.Add(`a"b`, "100%25", " \x00", "")
	f.Fuzz(func(t *testing.T, id, source, eventType, contentType string) {
		want := wire.CloudEvent{ID: id, Source: source, Type: eventType, Time: time.Unix(1, 2).UTC(), ContentType: contentType}
		h := map[string][]string{}
		want.Put(h)
		for name, values := range h {
			if name != wire.HeaderContentType && strings.ContainsFunc(values[0], func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("%s holds %q", name, values[0])
			}
			if !wire.Stays(name) {
				t.Errorf("%s does not stay with its event", name)
			}
		}
		got, ok := wire.CloudEventOf(h)
		if ok != (id != "") {
			t.Fatalf("read %v, %v", got, ok)
		}
		valid := strings.ToValidUTF8(id+source+eventType, "?") == id+source+eventType
		if ok && valid && got != want {
			t.Errorf("read %+v, want %+v", got, want)
		}
	})
}

func TestForeignCloudEventsAreRead(t *testing.T) {
	t.Parallel()
	got, ok := wire.CloudEventOf(map[string][]string{
		"ce-specversion": {"1.0"}, "ce-id": {"7"}, "ce-source": {"/a%20b"}, "ce-type": {"x"}, "ce-time": {"never"}, "content-type": {"text/plain"},
	})
	if want := (wire.CloudEvent{ID: "7", Source: "/a b", Type: "x", ContentType: "text/plain"}); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := wire.CloudEventOf(map[string][]string{"ce-id": {"7"}}); ok {
		t.Error("without a version it is none")
	}
}
