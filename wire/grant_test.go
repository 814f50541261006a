package wire_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hozo-dev/hozo/wire"
)

func TestReadGrantReadsTheStoredForm(t *testing.T) {
	t.Parallel()
	got, err := wire.ReadGrant(filepath.Join("testdata", "grant.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := wire.Grant{
		Version: 1, Project: "firehose", Service: "classify", Instance: 2, User: "classify.2", Password: "secret",
		Inbox: "_INBOX.classify.2",
		Consumes: []wire.Source{
			{Stream: "events.raw", Durable: "classify"},
			{Stream: "hozo.retry", Subjects: []string{"hozo.retry.classify.>"}, Durable: "classify", Ordered: true},
		},
		Publish:  []wire.Route{{Subject: "events.by.>", Stream: "events.by", Compression: "zstd", Frames: true}},
		Handles:  []string{"thumb"},
		Enqueues: []string{"mail"},
		Serves:   []string{"classify.ask"},
		Calls:    []string{"users.get"},
		Config:   []byte(`{"depth": 3}`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
}

func TestReadGrantSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := wire.ReadGrant(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: error is %v", err)
	}
	for content, want := range map[string]string{
		`{"version": 2}`: "has version 2, this build reads version 1",
		`{}`:             "has version 0",
		`{"version": `:   "decode grant",
	} {
		path := filepath.Join(dir, "grant.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := wire.ReadGrant(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q in it", content, err, want)
		}
	}
}
